"""Bundles with a busybox, and containers of them that our OCI runtime makes in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from windlass_conformance.boxes import BUSYBOX
from windlass_oci_runtime import ending, state
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry

# Any: JSON.
Spec = dict[str, Any]

APPLETS = (
    "sh ls cat echo id grep sleep true false mount env pwd stat touch hostname ulimit tty kill head tail umask nproc ps"
)
CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_MKNOD"]
DEFAULT_MOUNTS: list[dict[str, object]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
]


def rootfs(directory: Path) -> Path:
    """Make a root file system of busybox and a few files, which every user can read and reach."""
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "root"):
        (directory / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for name in APPLETS.split():
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    for above in directory.parents:
        if above.stat().st_mode & 0o011 != 0o011 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o711)
    return directory


def spec(*arguments: str, **more: Any) -> Spec:
    """Return a specification with the usual namespaces and mounts; ``more`` replaces members of `linux`."""
    namespaces = [{"type": each} for each in ("pid", "network", "mount", "ipc", "uts")]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    named = {"hostname": "box"} if {"type": "uts"} in more.get("namespaces", namespaces) else {}
    return {
        **named,
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(arguments),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": sets,
        },
        "root": {"path": "rootfs"},
        "mounts": [dict(each) for each in DEFAULT_MOUNTS],
        "linux": {"namespaces": namespaces, **more},
    }


class Runtime:
    """Our runtime, with a root of its own and one root file system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = str(directory / "state")
        self.rootfs = rootfs(directory / "b/rootfs")
        self._count = 0

    def bundle(self, document: Spec) -> str:
        """Write a specification, and return its bundle's directory."""
        (self.directory / "b/config.json").write_text(json.dumps(document))
        return str(self.directory / "b")

    def create(self, document: Spec, output: int = -1, id: str = "") -> Box:
        """Make a container that waits for its start. Raises what the runtime raises; nothing is left then."""
        self._count += 1
        id = id or f"wl-{os.getpid()}-{self._count}"
        document["linux"].setdefault("cgroupsPath", f"/windlass-oci-{os.getpid()}/{id}")
        creation = Creation(self.root, id, self.bundle(document))
        try:
            creation.spawn({1: output, 2: output} if output >= 0 else {})
            return Box(self, id, creation.settle())
        except BaseException:
            creation.undo()
            raise

    def run(self, document: Spec) -> tuple[int, str]:
        """Run a container to its end, and return its exit code and its output."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(reader, "rb") as file:
            try:
                box = self.create(document, writer)
            finally:
                os.close(writer)
            box.start()
            output = file.read().decode(errors="replace")
            return box.end(), output

    def close(self) -> None:
        """Remove what tests have left, and fail if that was anything."""
        left = os.listdir(self.root) if os.path.isdir(self.root) else []
        assert [each for each in left if not each.startswith(".")] == []


class Box:
    """A container."""

    def __init__(self, runtime: Runtime, id: str, pid: int) -> None:
        self.runtime = runtime
        self.id = id
        self.pid = pid
        self.container = state.Container(runtime.root, id)

    def start(self) -> None:
        ending.start(self.container)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> int:
        """Wait for the end, and delete it."""
        code = self.wait()
        ending.delete(self.container)
        return code

    def kill(self) -> None:
        """Kill it, and delete it."""
        ending.kill(self.container, 9)
        self.end()

    def exec(self, arguments: Sequence[str], **process: object) -> tuple[int, str]:
        """Run a further process, and return its exit code and its output."""
        wanted = {**spec(*arguments)["process"], **process}
        reader, writer = os.pipe2(os.O_CLOEXEC)
        with os.fdopen(reader, "rb") as file:
            try:
                entry = Entry(self.container, wanted)
                try:
                    entry.spawn({1: writer, 2: writer})
                    pid = entry.settle()
                except BaseException:
                    entry.undo()
                    if entry.pid:
                        os.kill(entry.pid, 9)
                        os.waitpid(entry.pid, 0)
                    raise
            finally:
                os.close(writer)
            output = file.read().decode(errors="replace")
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def runc(runtime: Runtime, document: Spec) -> tuple[int, str]:
    """Run the same with runc, and return exit code and output."""
    id = f"runc-{os.getpid()}"
    document["linux"]["cgroupsPath"] = f"/windlass-oci-{os.getpid()}/{id}"
    command = ["runc", "--root", str(runtime.directory / "runc"), "run", "-b", runtime.bundle(document), id]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=60
    )
    return done.returncode, done.stdout.decode(errors="replace")
