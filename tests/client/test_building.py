"""`windlass build`: what buildctl is told, and what a user hears without a buildkitd. buildctl is a script here."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from client.conftest import ArchiveFiles, FakeDaemon

from windlass.errors import Error, NotFound, Unavailable
from windlass_client import building
from windlass_client.cli import windlass

BUILDCTL = """#!/bin/sh
printf '%s\\n' "$@" > "$0.arguments"
for each; do
  case "$each" in --output=*) destination=${each##*dest=};; --local=context=*) context=${each#*=*=};; esac
done
[ -e "$context/fail" ] && { echo "no such stage" >&2; exit 3; }
cp "$0.tar" "$destination"
"""


@pytest.fixture
def buildctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A buildctl that always builds one image."""
    program = tmp_path / "bin/buildctl"
    program.parent.mkdir()
    program.write_text(BUILDCTL)
    program.chmod(0o755)
    ArchiveFiles(name="docker.io/library/app:1").save(Path(f"{program}.tar"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


@pytest.fixture
def buildkitd(tmp_path: Path) -> Iterator[str]:
    """A socket that is listened at."""
    path = tmp_path / "b.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        yield f"unix://{path}"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM scratch\n")
    return directory


async def run(address: str, *arguments: str, data: str = "") -> Result:
    runner = CliRunner()
    line = ["--address", address, "build", *arguments]
    return await asyncio.to_thread(runner.invoke, windlass, line, input=data)


async def test_a_build(address: str, daemon: FakeDaemon, buildctl: Path, buildkitd: str, context: Path) -> None:
    """The image is imported under its whole name; buildctl gets every option."""
    done = await run(
        address, "--buildkit-host", buildkitd, "-t", "app:1", "--build-arg", "A=b", "--label", "k=v",
        "--target", "last", "--no-cache", "--secret", "id=x,src=/y", str(context),
    )  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.startswith("built app:1 sha256:")
    assert "docker.io/library/app:1" in daemon.images
    told = Path(f"{buildctl}.arguments").read_text().splitlines()
    assert told[:4] == ["--addr", buildkitd, "build", "--frontend=dockerfile.v0"]
    assert f"--local=context={context}" in told and "--opt=build-arg:A=b" in told and "--opt=label:k=v" in told
    assert "--opt=target=last" in told and "--no-cache" in told and "--secret=id=x,src=/y" in told
    assert any(each.startswith('--output=type=docker,"name=docker.io/library/app:1",dest=') for each in told)


async def test_a_dockerfile_on_standard_input(address: str, buildctl: Path, buildkitd: str) -> None:
    """Quietly: only the ID is printed."""
    done = await run(address, "-q", "--buildkit-host", buildkitd, "-t", "app:1", "-", data="FROM scratch\n")
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stdout.startswith("sha256:") and len(done.stdout.split()) == 1


async def test_a_build_that_fails(
    address: str, daemon: FakeDaemon, buildctl: Path, buildkitd: str, context: Path
) -> None:
    """It said why itself."""
    (context / "fail").touch()
    done = await run(address, "--buildkit-host", buildkitd, "-q", "-t", "app:1", str(context))
    assert isinstance(done.exception, Error) and "buildctl ended with 3" in str(done.exception)
    assert not daemon.images


def test_without_a_buildkitd(tmp_path: Path, buildkitd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how to start one."""
    with pytest.raises(Unavailable, match="there is no such socket; start it with `buildkitd"):
        building.check(f"unix://{tmp_path}/none.sock")
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="no process listens there"):
        building.check(str(tmp_path / "file"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotFound, match="buildctl is not in PATH; it comes with BuildKit"):
        building.check(buildkitd)


def test_where_buildkitd_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As given, as the environment says, or in its usual place."""
    monkeypatch.setenv("BUILDKIT_HOST", "tcp://127.0.0.1:1234")
    assert building.address("") == "tcp://127.0.0.1:1234"
    assert building.address("/a.sock") == "unix:///a.sock"
    monkeypatch.delenv("BUILDKIT_HOST")
    assert building.address("").endswith("/buildkit/buildkitd.sock")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["{}/none"], "is not a directory"), (["-f", "{}/none", "{}"], "Dockerfile .* does not exist")],
)
async def test_what_cannot_be_built(
    address: str, buildctl: Path, buildkitd: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    """A context that is no directory, a Dockerfile that is not there."""
    done = await run(address, "--buildkit-host", buildkitd, *(each.format(tmp_path) for each in arguments))
    with pytest.raises(Error, match=words):
        raise done.exception or AssertionError
