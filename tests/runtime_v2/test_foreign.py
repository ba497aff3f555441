"""Which shim binary a runtime means, and what its answers mean (docs/containerd 4.1, 4.3, 8.10)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest
from runtime_v2.harness import eventually

from windlass import errors
from windlass.contracts.values import Payload
from windlass_api.containerd.runtime.bootstrap.v1 import bootstrap_pb2 as pb
from windlass_runtime_v2.bundle import Bootstrap
from windlass_runtime_v2.bundles import Bundles
from windlass_runtime_v2.foreign import ForeignShims, parse_result
from windlass_runtime_v2.runtimes import Executables, binary_name
from windlass_runtime_v2.settings import Deadlines, ShimSettings
from windlass_runtime_v2.shimlog import ShimLog

MESSAGE = pb.BootstrapResult(version=3, address="unix:///s", protocol="ttrpc")
ENDS_IN_NEWLINE = pb.BootstrapResult(version=3, address="unix:///s", protocol="grpc\n")


@pytest.mark.parametrize("runtime", ["", "a/b.c.d", "./x.y", "single", ".x.y", "a..v2", "a.b.", "a.b\0.c"])
def test_malformed_runtime_names_are_refused(runtime: str) -> None:
    """Over RPC the code is UNKNOWN, as containerd's."""
    with pytest.raises(errors.Error, match="runtime") as caught:
        Executables().resolve(runtime)
    assert type(caught.value) is errors.Error


def test_a_dotted_name_means_its_last_two_components() -> None:
    """Whatever comes before them."""
    assert binary_name("io.containerd.runc.v2") == binary_name("runc.v2") == "containerd-shim-runc-v2"


def test_an_absolute_path_is_used_as_it_is(tmp_path: Path) -> None:
    """When there is such a file."""
    (tmp_path / "shim").write_text("")
    assert Executables().resolve(str(tmp_path / "shim")) == str(tmp_path / "shim")
    with pytest.raises(errors.Error, match='invalid custom binary path: "/nowhere/shim" is not a file'):
        Executables().resolve("/nowhere/shim")


def test_a_binary_is_found_on_the_path_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the machine does not change running daemons."""
    shim = tmp_path / "containerd-shim-odd-v1"
    shim.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    executables = Executables()
    with pytest.raises(errors.Error, match='"containerd-shim-odd-v1" is not installed'):
        executables.resolve("io.containerd.odd.v1")
    shim.chmod(0o755)
    assert executables.resolve("io.containerd.odd.v1") == str(shim)
    shim.unlink()
    assert executables.resolve("io.containerd.odd.v1") == str(shim)


@pytest.mark.parametrize("path", ["", ".", "here", ":/nowhere", "./here:/nowhere"])
def test_the_working_directory_is_no_place_for_shims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Nor is what a relative entry of PATH leads to from there: what anybody may have put there would run as root."""
    for place in (tmp_path, tmp_path / "here"):
        place.mkdir(exist_ok=True)
        (place / "containerd-shim-odd-v1").write_text("#!/bin/sh\n")
        (place / "containerd-shim-odd-v1").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(errors.Error, match='"containerd-shim-odd-v1" is not installed'):
        Executables().resolve("io.containerd.odd.v1")


def test_a_missing_binary_is_named_with_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is all that an operator has to go by."""
    monkeypatch.setenv("PATH", "/first:/second")
    with pytest.raises(
        errors.Error,
        match=r'"io.example.no.v9": binary "containerd-shim-no-v9" is not installed; looked in /first:/second',
    ):
        Executables().resolve("io.example.no.v9")


def test_a_refusal_quotes_the_runtime_as_the_client_wrote_it() -> None:
    """In double quotes, as Go does, which clients look for."""
    with pytest.raises(errors.Error, match='invalid runtime name "no-runc": '):
        Executables().resolve("no-runc")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"unix:///s\n", Bootstrap("unix:///s", 2)),
        (b"/abstract-ish\n", Bootstrap("/abstract-ish", 2)),
        (MESSAGE.SerializeToString(), Bootstrap("unix:///s", 3)),
        (ENDS_IN_NEWLINE.SerializeToString(), Bootstrap("unix:///s", 3, "grpc\n")),
        (b'{"version": 2, "address": "unix:///s", "protocol": "grpc"}', Bootstrap("unix:///s", 2, "grpc")),
        (b' {"Version": 3, "Address": "unix:///s", "Protocol": "ttrpc"}\n', Bootstrap("unix:///s", 3)),
        (b'{"address": "unix:///s"}', Bootstrap('{"address": "unix:///s"}', 2)),
    ],
)
def test_all_three_forms_of_an_answer_are_understood(output: bytes, expected: Bootstrap) -> None:
    """A message, tried untrimmed; a JSON object with a version; anything else is an address."""
    assert parse_result(output) == expected


@pytest.mark.parametrize(
    "output",
    [b'{"version": 4, "address": "unix:///s"}', pb.BootstrapResult(version=4, address="unix:///s").SerializeToString()],
)
def test_a_version_to_come_is_refused(output: bytes) -> None:
    """Better than to guess what it means."""
    with pytest.raises(errors.Unimplemented, match="version 4"):
        parse_result(output)


SHIM = f"""#!{sys.executable}
import os, sys
from pathlib import Path
data = sys.stdin.buffer.read()
Path("seen").write_bytes(data)
Path("args").write_text("\\n".join(sys.argv[1:]))
Path("env").write_text(os.environ["NAMESPACE"] + " " + os.environ["EXTRA"] + " " + os.environ["TTRPC_ADDRESS"])
if "refuse" in str(Path.cwd()):
    print("words on stdout"); print("words on stderr", file=sys.stderr, flush=True); sys.exit(3)
if "sleepy" in str(Path.cwd()):
    import time; time.sleep(60)
print("unix:///made/up")
"""


@pytest.fixture
def binary(tmp_path: Path) -> str:
    """A shim's executable."""
    path = tmp_path / "containerd-shim-odd-v1"
    path.write_text(SHIM)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def foreign(tmp_path: Path) -> ForeignShims:
    settings = ShimSettings(Path("/run/w/s"), ("EXTRA=more",), "/run/w.sock", "/run/w.sock.ttrpc", "debug")
    return ForeignShims(settings, Deadlines(request=10.0))


def test_a_shim_is_told_what_containerd_would_tell_it(foreign: ForeignShims, binary: str, tmp_path: Path) -> None:
    """Arguments, environment, and a message on standard input that carries the options."""
    bundle = Bundles(tmp_path / "state", tmp_path / "root").create("ns", "box", b"{}")

    bootstrap = foreign.start(bundle, binary, Payload("containerd.runc.v1.Options", b"\x08\x01"))

    assert bootstrap == bundle.read_bootstrap() == Bootstrap("unix:///made/up", 2)
    assert bundle.read_shim_binary() == binary
    arguments = (bundle.path / "args").read_text().split("\n")
    assert arguments[:4] == ["-namespace", "ns", "-address", "/run/w.sock"]
    assert arguments[-4:] == ["-id", "box", "-debug", "start"]
    assert (bundle.path / "env").read_text() == "ns more /run/w.sock.ttrpc"
    params = pb.BootstrapParams.FromString((bundle.path / "seen").read_bytes())
    assert (params.instance_id, params.namespace, params.log_level) == ("box", "ns", -4)
    assert params.extensions[0].value.value == b"\x08\x01"
    assert params.socket_dir == "/run/w/s"


def test_a_shim_that_fails_is_quoted(foreign: ForeignShims, binary: str, tmp_path: Path) -> None:
    """Both of its streams are in the error."""
    bundle = Bundles(tmp_path / "state", tmp_path / "root").create("ns", "refuse", b"{}")
    with pytest.raises(errors.Error, match=r"did not start \(exit code 3\): words on std") as caught:
        foreign.start(bundle, binary, None)
    assert "words on stdout" in str(caught.value)
    assert "words on stderr" in str(caught.value)


def test_a_shim_that_does_not_return_is_given_up(binary: str, tmp_path: Path) -> None:
    """The step is named."""
    foreign = ForeignShims(ShimSettings(Path("/run/w/s"), ("EXTRA=more",)), Deadlines(request=0.5))
    bundle = Bundles(tmp_path / "state", tmp_path / "root").create("ns", "sleepy", b"{}")
    with pytest.raises(errors.DeadlineExceeded, match=r"start of task sleepy took over 0\.5 s"):
        foreign.start(bundle, binary, None)


async def test_a_log_is_read_whoever_ends_and_begins_to_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that is started with what it cannot read has begun its log when it ends; then it is started again."""
    bundle = Bundles(tmp_path / "state", tmp_path / "root").create("test", "box", b"{}")
    caplog.set_level(logging.INFO)
    log = ShimLog(bundle)
    log.follow()
    try:
        for line in ("first", "second"):
            # Not to wait for a reader: without one this fails.
            writer = os.open(bundle.path / "log", os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, f"{line}\n".encode())
            os.close(writer)
            if line == "first":
                await eventually(lambda: "shim of task box: first" in caplog.messages)
                await asyncio.sleep(0.05)
    finally:
        log.close()
        log.close()
    assert "shim of task box: second" in caplog.messages


def test_a_shim_is_asked_for_its_description(tmp_path: Path) -> None:
    """It reads options and prints a message; when it fails, its own words are told."""
    shims = ForeignShims(ShimSettings(tmp_path), Deadlines())
    binary = tmp_path / "shim"
    binary.write_text('#!/bin/sh\ntest "$1" = -info || exit 3\nprintf "info of "; cat\n')
    binary.chmod(0o755)
    assert shims.describe(str(binary), b"options") == b"info of options"
    binary.write_text("#!/bin/sh\necho what is that >&2; exit 2\n")
    with pytest.raises(errors.Error, match="-info ended with 2: what is that"):
        shims.describe(str(binary), b"")
