"""`build`: a running buildkitd makes an image of a Dockerfile, by its client buildctl; the daemon gets the result."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from windlass_client import imageloading
from windlass_client.imagerows import identified
from windlass_client.shortnames import full
from windlass_images import unpack
from windlass_registry import references

if TYPE_CHECKING:
    from windlass_client.client import Client

SOCKET = "/run/buildkit/buildkitd.sock"
START = "start it with `buildkitd --oci-worker=true --containerd-worker=false`, or name another by --buildkit-host"
GET = "it comes with BuildKit, https://github.com/moby/buildkit/releases"
UNNAMED = "windlass.local/build:latest"


@dataclass(frozen=True)
class Wanted:
    """What is to be built."""

    context: str
    file: str = ""
    names: Sequence[str] = ()
    arguments: Sequence[str] = ()
    labels: Sequence[str] = ()
    target: str = ""
    platforms: Sequence[str] = ()
    secrets: Sequence[str] = ()
    no_cache: bool = False
    pull: bool = False
    quiet: bool = False
    progress: str = "auto"
    host: str = ""


def command(wanted: Wanted, context: Path, dockerfile: Path, archive: Path, names: Sequence[str]) -> list[str]:
    """Return buildctl's command line, which leaves an archive of docker's form."""
    options = [("filename", dockerfile.name), ("target", wanted.target), ("platform", ",".join(wanted.platforms))]
    options += [(f"build-arg:{key}", value) for key, value in map(_argument, wanted.arguments)]
    options += [(f"label:{key}", value) for key, _, value in (label.partition("=") for label in wanted.labels)]
    options += [("image-resolve-mode", "pull")] if wanted.pull else []
    return [
        "buildctl",
        "--addr",
        address(wanted.host),
        "build",
        "--frontend=dockerfile.v0",
        f"--local=context={context}",
        f"--local=dockerfile={dockerfile.parent}",
        *(f"--opt={key}={value}" for key, value in options if value or key.startswith(("build-arg:", "label:"))),
        *(f"--secret={each}" for each in wanted.secrets),
        *(["--no-cache"] if wanted.no_cache else []),
        f"--progress={'plain' if wanted.quiet else wanted.progress}",
        f'--output=type={"oci" if len(wanted.platforms) > 1 else "docker"},"name={",".join(names)}",dest={archive}',
    ]


def _argument(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    return key, value if equals else os.environ.get(key, "")


def address(host: str) -> str:
    """Return the address of the buildkitd: as given, from the environment, or where it listens as a rule."""
    if host := host or os.environ.get("BUILDKIT_HOST", ""):
        return host if "://" in host else f"unix://{Path(host).absolute()}"
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "buildkit/buildkitd.sock")
    return f"unix://{own if os.geteuid() and own.exists() else SOCKET}"


def check(host: str) -> None:
    """Raise Unavailable if no buildkitd listens, NotFound if there is no buildctl to speak to it."""
    where = address(host)
    if where.startswith("unix://"):
        path = where.removeprefix("unix://")
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 - a text
                raise ConnectionRefusedError
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(5)
                probe.connect(path)
        except OSError as error:
            why = "there is no such socket" if isinstance(error, FileNotFoundError) else "no process listens there"
            raise Unavailable(f"buildkitd at {path} is not running: {why}; {START}") from None
    if shutil.which("buildctl") is None:
        raise NotFound(f"buildctl is not in PATH; {GET}")


async def build(client: Client, wanted: Wanted) -> tuple[str, list[str]]:
    """Build, import the result, and return its ID and its names. Raises FailedPrecondition if buildctl fails."""
    names = [str(references.parse(full(name))) for name in wanted.names] or [UNNAMED]
    check(wanted.host)
    with tempfile.TemporaryDirectory(prefix="windlass-build-") as directory:
        archive = Path(directory) / "image.tar"
        context, dockerfile = _sources(wanted, Path(directory))
        line = command(wanted, context, dockerfile, archive, names)
        await asyncio.to_thread(_execute, line, wanted.quiet)
        found = await imageloading.load(client, str(archive), None, unpack.ignore)
    image = await client.images.get(names[0] if names[0] in found else found[0])
    return await identified(client, image), found


def _sources(wanted: Wanted, scratch: Path) -> tuple[Path, Path]:
    """Return the directory with the context, and the Dockerfile."""
    if wanted.context == "-":
        (scratch / "context").mkdir()
        (scratch / "Dockerfile").write_bytes(sys.stdin.buffer.read())
        return scratch / "context", scratch / "Dockerfile"
    context = Path(wanted.context).absolute()
    if not context.is_dir():
        raise InvalidArgument(f"context {context} is not a directory; other kinds than directories and - are not built")
    dockerfile = Path(wanted.file).absolute() if wanted.file else context / "Dockerfile"
    if not dockerfile.is_file():
        raise NotFound(f"Dockerfile {dockerfile} does not exist; name another by --file")
    return context, dockerfile


def _execute(line: Sequence[str], quiet: bool) -> None:
    """Run buildctl, whose progress is the user's to see, unless it is to be quiet and succeeds."""
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE if quiet else None, check=False)
    if done.returncode:
        if quiet:
            sys.stderr.write(done.stderr.decode(errors="replace"))
        raise FailedPrecondition(f"the build failed: buildctl ended with {done.returncode}; it said why above")
