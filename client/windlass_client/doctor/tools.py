"""Programs of others that the daemon and `windlass` execute, and their versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from windlass_client.doctor.findings import Area, Finding

PATIENCE = 5.0
_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+~-]*")
_PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where programs of root are that the PATH of a user may lack."""


@dataclass(frozen=True)
class Tool:
    """A program; the first of ``names`` that is there is enough."""

    names: tuple[str, ...]
    purpose: str
    package: str
    required: bool = False
    arguments: tuple[str, ...] = ("--version",)


TOOLS = (
    Tool(("runc", "crun"), "no container can run", "runc", required=True),
    Tool(("modprobe",), "modules such as overlay have to be loaded by hand", "kmod", arguments=("-V",)),
    Tool(("iptables", "nft"), "no published ports (-p), no way out of bridges", "iptables"),
    Tool(("criu",), "no checkpoint and restore", "criu"),
    Tool(("mkfs.erofs",), "no snapshotter erofs", "erofs-utils", arguments=("-V",)),
    Tool(("mkfs.ext4",), "no snapshotter blockfile", "e2fsprogs", arguments=("-V",)),
    Tool(("btrfs",), "no snapshotter btrfs", "btrfs-progs"),
    Tool(("newuidmap",), "no rootless daemon", "uidmap", arguments=()),
    Tool(("slirp4netns",), "no network for a rootless daemon", "slirp4netns"),
    Tool(("fuse-overlayfs",), "a rootless daemon needs overlay in user namespaces", "fuse-overlayfs"),
)


def findings(tools: Sequence[Tool] = TOOLS, path: str | None = None) -> Iterator[Finding]:
    """Yield a line for each program; ``path`` is where they are looked for, by default the environment's."""
    area = Area("programs")
    places = path if path is not None else os.pathsep.join([os.environ.get("PATH", os.defpath), *_PLACES])
    with ThreadPoolExecutor(len(tools) or 1) as pool:
        yield from pool.map(lambda tool: _look(area, tool, places), tools)


def _look(area: Area, tool: Tool, places: str) -> Finding:
    name = " or ".join(tool.names)
    found = next((program for each in tool.names if (program := shutil.which(each, path=places))), None)
    if found is None:
        remedy = f"apt-get install {tool.package}"
        if tool.required:
            return area.error(name, f"is not installed: {tool.purpose}", remedy)
        return area.note(name, f"is not installed: {tool.purpose}", remedy)
    version, reason = _version(found, tool.arguments)
    if reason:
        detail = f"{found} {reason}"
        remedy = f"apt-get install --reinstall {tool.package}"
        return area.error(name, detail, remedy) if tool.required else area.warning(name, detail, remedy)
    return area.ok(Path(found).name, f"{version} {found}".strip())


def _version(program: str, arguments: tuple[str, ...]) -> tuple[str, str]:
    """Return a program's version, or why it cannot be executed."""
    if not arguments:
        return "", ""
    try:
        done = subprocess.run(
            [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return "", f"did not print its version within {PATIENCE:g} s"
    except OSError as error:
        return "", f"cannot be executed: {error.strerror}"
    except UnicodeDecodeError:
        return "", ""
    found = _VERSION.search(done.stdout + done.stderr)
    if done.returncode and not found:
        return "", f"fails with exit code {done.returncode}"
    return found[0] if found else "", ""
