"""``-info``: what the runtime behind the shim says of itself, and what is in the daemon's log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass import __version__
from windlass_shim_runc import info, log, messages
from windlass_shim_runc.messages import AnyMessage, Options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")


def runtime(folder: Path, script: str) -> str:
    """Return the path of an OCI runtime that is a shell script."""
    program = folder / "runtime"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def described(options: AnyMessage) -> info.RuntimeInfo:
    return messages.decode(info.RuntimeInfo, info.describe(options.encode(), "some.name.v1"))


def test_the_runtime_of_the_options_is_asked(tmp_path: Path) -> None:
    """The client gets its options back, our version, and the runtime's features as the runtime wrote them."""
    options = messages.pack(
        Options(binary_name=runtime(tmp_path, """[ "$*" = features ] && echo '{"ociVersion":1}'"""))
    )
    found = described(options)
    assert (found.name, found.version.version, found.options) == ("some.name.v1", __version__, options)
    assert found.features == AnyMessage(type_url=info.FEATURES, value=b'{"ociVersion":1}\n')


@pytest.mark.parametrize("script", ["echo unknown command; exit 1", ":", "kill -9 $$"])
def test_a_runtime_that_does_not_know_its_features_has_none(tmp_path: Path, script: str) -> None:
    """As all before runc 1.1; what such a one prints is not taken for its answer."""
    found = described(messages.pack(Options(binary_name=runtime(tmp_path, script))))
    assert found.features == AnyMessage()


def test_a_runtime_that_hangs_or_is_not_there_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question has an end, and its answer is still a description."""
    monkeypatch.setattr(info, "TIMEOUT", 0.1)
    for program in (runtime(tmp_path, "exec sleep 60"), "/no/such/runtime"):
        assert described(messages.pack(Options(binary_name=program))).features == AnyMessage()


@pytest.mark.parametrize("data", [b"\xff", AnyMessage(type_url="x.Y").encode()])
def test_options_that_are_none_are_refused(data: bytes) -> None:
    """With what was read, and why it will not do."""
    with pytest.raises(ValueError, match="standard input has no valid options: "):
        info.describe(data)


@pytest.fixture
def stderr() -> Iterator[None]:
    """Put standard error back."""
    kept = os.dup(log.STDERR)
    yield
    os.dup2(kept, log.STDERR)
    os.close(kept)


@pytest.mark.usefixtures("stderr")
def test_the_log_is_the_fifo_of_the_bundle(tmp_path: Path) -> None:
    """A message is one line, with whose it is; a daemon that comes later reads what was written before."""
    os.mkfifo(tmp_path / "log")
    log.use_fifo(str(tmp_path))
    log.log("two\nlines")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 4096) == b"windlass-shim[%d]: two lines\n" % os.getpid()
    os.close(reader)


@pytest.mark.usefixtures("stderr")
def test_a_log_that_is_not_read_holds_no_shim_up(tmp_path: Path) -> None:
    """Lines that find no room are dropped whole."""
    os.mkfifo(tmp_path / "log")
    log.use_fifo(str(tmp_path))
    for _ in range(100):
        log.log("x" * 5000)
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    lines = os.read(reader, 1 << 20).splitlines(keepends=True)
    assert 0 < len(lines) < 100
    assert {len(line) for line in lines} == {log.MAX_LINE + 1}
    os.close(reader)


@pytest.mark.usefixtures("stderr")
@pytest.mark.parametrize("is_link", [False, True])
def test_without_a_fifo_nothing_is_written(tmp_path: Path, is_link: bool) -> None:
    """Neither to the daemon's own standard error, nor through a link to what somebody has put in the bundle."""
    target = tmp_path / "target"
    target.touch()
    if is_link:
        (tmp_path / "log").symlink_to(target)
    log.use_fifo(str(tmp_path))
    log.log("lost")
    assert os.stat("/dev/null").st_rdev == os.fstat(log.STDERR).st_rdev
    assert target.read_bytes() == b""
