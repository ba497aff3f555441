"""The shim as an executable: what it takes from a daemon and what it answers, without containers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from polling import is_readable
from shim_runc.harness import Client

from windlass_api.containerd.runtime.bootstrap.v1 import bootstrap_pb2 as pb
from windlass_api.containerd.task.v3 import shim_pb2
from windlass_api.containerd.types import introspection_pb2
from windlass_shim_runc import flags, messages
from windlass_shim_runc.params import Start

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="shims need root on Linux")

RUN = [sys.executable, "-m", "windlass_shim_runc.binary"]
OPTIONS = messages.pack(messages.Options(binary_name="crun")).encode()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A short directory for sockets."""
    path = Path(tempfile.mkdtemp(prefix="wls", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def run(
    bundle: Path, *arguments: str, data: bytes = b"", flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Execute the shim in a bundle."""
    given = flags or ("-namespace", "test", "-id", "one", "-address", str(bundle / "d.sock"))
    return subprocess.run([*RUN, *given, *arguments], cwd=bundle, input=data, capture_output=True, timeout=20)


def params(sockets: Path, **values: str) -> bytes:
    """Return BootstrapParams as containerd 2.3 gives them."""
    given = pb.BootstrapParams(
        instance_id="one",
        namespace="test",
        containerd_ttrpc_address=str(sockets / "no.ttrpc"),
        containerd_grpc_address=str(sockets / "no.sock"),
        socket_dir=str(sockets),
        extensions=[pb.Extension()],
    )
    for name, value in values.items():
        setattr(given, name, value)
    return given.SerializeToString()


def shut_down(address: str) -> None:
    """Tell the shim behind an address to end; return when it has."""
    client = Client(address.removeprefix("unix://"))
    answer = client.call(messages.ConnectResponse, "Connect", messages.TaskRequest(id="one"))
    pidfd = os.pidfd_open(answer.shim_pid)
    client.call(messages.Message, "Shutdown", messages.ShutdownRequest(id="one"))
    assert is_readable(pidfd, 10)
    os.close(pidfd)
    client.close()


def test_a_current_daemon_gets_a_message_and_an_older_one_an_address(sockets: Path, tmp_path: Path) -> None:
    """BootstrapParams in, BootstrapResult out; a second start joins; the end removes the socket."""
    (tmp_path / "config.json").write_text('{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}')
    first = run(tmp_path, "start", data=params(sockets))
    assert first.returncode == 0, first.stderr
    result = pb.BootstrapResult.FromString(first.stdout)
    assert (result.version, result.protocol) == (3, "ttrpc")
    assert result.address.startswith(f"unix://{sockets}/")
    assert (tmp_path / "address").read_text() == result.address
    assert (tmp_path / "s").resolve() == sockets

    other = run(
        tmp_path,
        "start",
        data=params(sockets, instance_id="two"),
        flags=("-namespace", "test", "-id=two", "--address", "/else"),
    )
    assert pb.BootstrapResult.FromString(other.stdout).address == result.address

    path = Path(result.address.removeprefix("unix://"))
    assert path.stat().st_mode & 0o777 == 0o600
    shut_down(result.address)
    assert not path.exists()


def test_the_socket_of_a_dead_shim_is_not_in_the_way(sockets: Path, tmp_path: Path) -> None:
    """A file where nobody listens is replaced."""
    first = pb.BootstrapResult.FromString(run(tmp_path, "start", data=params(sockets)).stdout).address
    shut_down(first)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(first.removeprefix("unix://"))
    again = pb.BootstrapResult.FromString(run(tmp_path, "start", data=params(sockets)).stdout).address
    assert again == first
    shut_down(again)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            pb.BootstrapParams(instance_id="other", namespace="test", socket_dir="/x").SerializeToString(),
            "do not match",
        ),
        (
            pb.BootstrapParams(instance_id="one", namespace="test", socket_dir="x").SerializeToString(),
            "must be absolute",
        ),
        (b"\xff\xff\xff", "neither BootstrapParams nor options"),
        (b"\x0a\xff", "neither BootstrapParams nor options"),
    ],
)
def test_parameters_that_are_wrong_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """Another container's, garbage, a socket directory that is no path: status 1, the reason, no file, no process."""
    done = run(tmp_path, "start", data=data)
    assert (done.returncode, done.stdout) == (1, b"")
    assert message in done.stderr.decode()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", OPTIONS])
def test_options_alone_or_nothing_is_an_older_daemon(data: bytes) -> None:
    """containerd before 2.3 gives an Any or nothing, and wants the bare address."""
    parsed = flags.parse(["-namespace", "test", "-id", "one", "-address", "/d", "start"])
    start = Start(parsed, data)
    assert (start.is_current, start.grpc_address) == (False, "/d")


def test_flags_are_read_as_go_reads_them() -> None:
    """One dash or two, values after = or apart; switches may be false."""
    parsed = flags.parse(["-namespace=n", "--id", "i", "-debug", "-info=false", "-publish-binary", "/b", "delete", "x"])
    assert (parsed.namespace, parsed.id, parsed.publish_binary, parsed.action) == ("n", "i", "/b", "delete")
    assert (parsed.debug, parsed.info) == (True, False)
    for wrong in (["-nothing"], ["-id"]):
        with pytest.raises(flags.Refused):
            flags.parse(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "action '' is not known"),
        (("stop",), "action 'stop' is not known"),
        (("-id", "", "start"), "must be given"),
    ],
)
def test_calls_that_mean_nothing_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """One line on standard error."""
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr.decode()


def test_delete_of_a_bundle_that_was_never_finished_succeeds(tmp_path: Path) -> None:
    """DeleteResponse with 137; nothing has to be there."""
    bundle = tmp_path / "one"
    bundle.mkdir()
    (bundle / "init.pid").write_text("4194303")
    (bundle / "runtime").write_text("no-such-runc")
    done = run(bundle, "-bundle", str(bundle), "delete")
    assert done.returncode == 0, done.stderr
    answer = shim_pb2.DeleteResponse.FromString(done.stdout)
    assert (answer.exit_status, answer.pid) == (137, 4194303)
    assert answer.exited_at.seconds > 0


def test_version_and_info(tmp_path: Path) -> None:
    """-v is text; -info is a RuntimeInfo with the runtime's own features, or without when it has none to tell."""
    assert b"Version:" in run(tmp_path, flags=("-v",)).stdout
    done = run(tmp_path, flags=("-info",), data=messages.pack(messages.Options(binary_name="/bin/false")).encode())
    info = introspection_pb2.RuntimeInfo.FromString(done.stdout)
    assert info.name == "io.containerd.windlass.v1"
    assert info.options.type_url == "containerd.runc.v1.Options"
    assert not info.HasField("features")
    assert b"no valid options" in run(tmp_path, flags=("-info",), data=b"\xff").stderr


def test_events_go_out_by_the_publish_binary_when_there_is_no_ttrpc_address(sockets: Path, tmp_path: Path) -> None:
    """Topic and namespace as flags, the event on standard input, tried again until it is taken."""
    told = tmp_path / "told"
    program = tmp_path / "publish"
    program.write_text(f'#!/bin/sh\nmkdir {tmp_path}/once 2>/dev/null && exit 1\necho "$@" >{told}\ncat >>{told}\n')
    program.chmod(0o755)
    script = (
        "import sys; from windlass_shim_runc import flags, messages; from windlass_shim_runc.params import Start;"
        "from windlass_shim_runc.executed import ExecutingPublisher; from windlass_shim_runc.loop import Loop;"
        "from windlass_shim_runc.reaper import Reaper\n"
        "loop = Loop(); reaper = Reaper(loop); reaper.start()\n"
        "publisher = ExecutingPublisher(loop, reaper, Start(flags.parse(sys.argv[1:]), b''))\n"
        "publisher.publish('/tasks/oom', messages.TaskOOM(container_id='box'))\n"
        "async def end():\n    await publisher.empty.wait(10)\n    loop.stop()\n"
        "loop.spawn(publisher.run()); loop.spawn(end()); loop.run()\n"
    )
    arguments = ["-namespace", "n", "-id", "i", "-address", "/d.sock", "-publish-binary", str(program), "start"]
    environment = {key: value for key, value in os.environ.items() if key != "TTRPC_ADDRESS"}
    subprocess.run([sys.executable, "-c", script, *arguments], env=environment, check=True, timeout=20)

    head, _, event = told.read_bytes().partition(b"\n")
    assert head == b"--address /d.sock publish --namespace n --topic /tasks/oom"
    assert event == messages.pack(messages.TaskOOM(container_id="box")).encode()
