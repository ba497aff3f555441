"""A pod is namespaces with names: they are prepared, outlive the daemon, and are gone when it is."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from windlass.contracts.sandboxes import Sandbox, SandboxOptions
from windlass.contracts.values import Payload
from windlass.contracts.zygote import Zygote
from windlass.errors import AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import calls as linux
from windlass_linux import mounting, namespaces, netns
from windlass_sandboxer.controller import PinnedSandboxes
from windlass_sandboxer.pod import Pod, started
from windlass_sandboxer.settings import CONFIG, path_of, read
from windlass_zygote.spawner import ForkingZygote

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture(scope="module")
def zygote() -> Iterator[ForkingZygote]:
    made = ForkingZygote()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "net"
    netns.create(path)
    try:
        yield path
    finally:
        netns.remove(path)


@pytest.fixture
async def sandboxes(tmp_path: Path, zygote: ForkingZygote) -> AsyncIterator[PinnedSandboxes]:
    made = PinnedSandboxes(tmp_path / "state", zygote)
    try:
        yield made
    finally:
        for path in (tmp_path / "state").glob("*/*"):
            await made.shutdown(path.parent.name, path.name)
        assert mounting.mounts_below(tmp_path / "state") == []


def config(**changes: object) -> cri.PodSandboxConfig:
    made = cri.PodSandboxConfig(hostname="web-1")
    made.linux.security_context.namespace_options.pid = cri.CONTAINER
    for name, value in changes.items():
        if name == "sysctls":
            assert isinstance(value, dict)
            made.linux.sysctls.update(value)
        elif name == "hostname":
            made.hostname = str(value)
        else:
            assert isinstance(value, int)
            setattr(made.linux.security_context.namespace_options, name, value)
    return made


def options(joined: Path | None, **changes: object) -> SandboxOptions:
    payload = Payload(CONFIG, config(**changes).SerializeToString())
    return SandboxOptions(options=payload, netns_path=str(joined or ""))


async def run(sandboxes: PinnedSandboxes, joined: Path | None, id: str = "p1", **changes: object) -> dict[str, str]:
    await sandboxes.create("k8s.io", Sandbox(id), options(joined, **changes))
    await sandboxes.start("k8s.io", id)
    return dict((await sandboxes.status("k8s.io", id)).info)


def inode(path: str) -> int:
    return os.stat(path).st_ino


async def test_a_pod_has_namespaces_and_no_process(sandboxes: PinnedSandboxes, network: Path) -> None:
    found = await run(sandboxes, network)
    status = await sandboxes.status("k8s.io", "p1")
    assert status.state == "SANDBOX_READY" and status.pid == 0 and status.created_at
    assert sorted(found) == ["ipc", "net", "uts"]
    assert all(inode(path) != inode(f"/proc/self/ns/{kind}") for kind, path in found.items())
    assert namespaces.within("uts", Path(found["uts"]), socket.gethostname) == "web-1"
    assert socket.gethostname() != "web-1"


async def test_sysctls_are_set_in_the_pod_alone(sandboxes: PinnedSandboxes, network: Path) -> None:
    """Those of the network and of IPC; ports and ping are open by default, as containerd has them."""
    before = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    found = await run(sandboxes, network, sysctls={"kernel.shmmni": "77", "net.ipv4.ip_local_port_range": "1024 2048"})

    def value(name: str) -> str:
        return Path(path_of(name)).read_text().strip()

    net, ipc = Path(found["net"]), Path(found["ipc"])
    assert netns.within(net, lambda: value("net.ipv4.ip_unprivileged_port_start")) == "0"
    assert netns.within(net, lambda: value("net.ipv4.ip_local_port_range")).split() == ["1024", "2048"]
    assert namespaces.within("ipc", ipc, lambda: value("kernel.shmmni")) == "77"
    assert Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text() == before
    assert value("kernel.shmmni") != "77"


async def test_a_pod_of_the_hosts_network_has_its_hostname_too(sandboxes: PinnedSandboxes) -> None:
    found = await run(sandboxes, None, network=cri.NODE, ipc=cri.NODE, hostname="")
    assert found == {}
    assert (await sandboxes.status("k8s.io", "p1")).state == "SANDBOX_READY"


async def test_a_hostname_of_its_own_needs_a_network_of_its_own(sandboxes: PinnedSandboxes) -> None:
    with pytest.raises(InvalidArgument, match="without a private UTS namespace"):
        await run(sandboxes, None, network=cri.NODE)


async def test_a_shared_pid_namespace_has_an_init_that_reaps(sandboxes: PinnedSandboxes, network: Path) -> None:
    found = await run(sandboxes, network, pid=cri.POD)
    pid = (await sandboxes.status("k8s.io", "p1")).pid
    assert found["pid"] == f"/proc/{pid}/ns/pid" and inode(found["pid"]) != inode("/proc/self/ns/pid")
    assert f"NSpid:\t{pid}\t1\n" in Path(f"/proc/{pid}/status").read_text()
    assert inode(f"/proc/{pid}/ns/uts") == inode(found["uts"]) and inode(f"/proc/{pid}/ns/net") == inode(found["net"])
    # A process whose parent in the namespace ends becomes the init's child, and must not stay a zombie.
    script = "sh -c 'sleep 0.1 & echo $!'"
    nsenter = await asyncio.create_subprocess_exec(
        "nsenter", f"--pid={found['pid']}", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await nsenter.communicate()
    assert output.strip().isdigit()
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}/task/{pid}/children").read_text().strip():
            await asyncio.sleep(0.02)


async def test_waiting_ends_with_the_stop_or_the_init(sandboxes: PinnedSandboxes, network: Path) -> None:
    await run(sandboxes, network)
    waiting = asyncio.ensure_future(sandboxes.wait("k8s.io", "p1"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await sandboxes.stop("k8s.io", "p1", 0)
    assert (await asyncio.wait_for(waiting, 10)).status == 137
    assert (await sandboxes.status("k8s.io", "p1")).state == "SANDBOX_NOTREADY"

    await run(sandboxes, network, "p2", pid=cri.POD)
    waiting = asyncio.ensure_future(sandboxes.wait("k8s.io", "p2"))
    await asyncio.sleep(0.05)
    os.kill((await sandboxes.status("k8s.io", "p2")).pid, signal.SIGKILL)
    assert (await asyncio.wait_for(waiting, 10)).status == 137
    assert (await sandboxes.status("k8s.io", "p2")).state == "SANDBOX_NOTREADY"


async def test_a_new_daemon_finds_the_pod_as_it_was(
    sandboxes: PinnedSandboxes, network: Path, tmp_path: Path, zygote: ForkingZygote
) -> None:
    found = await run(sandboxes, network, pid=cri.POD)
    later = PinnedSandboxes(tmp_path / "state", zygote)
    status = await later.status("k8s.io", "p1")
    assert status.state == "SANDBOX_READY" and dict(status.info) == found
    await later.stop("k8s.io", "p1", 0)
    assert started(status.pid) == 0


async def test_stopping_and_shutting_down_leave_nothing(
    sandboxes: PinnedSandboxes, network: Path, tmp_path: Path
) -> None:
    await run(sandboxes, network, pid=cri.POD)
    for _ in range(2):
        await sandboxes.stop("k8s.io", "p1", 0)
    await sandboxes.shutdown("k8s.io", "p1")
    assert not (tmp_path / "state" / "k8s.io" / "p1").exists()
    with pytest.raises(NotFound):
        await sandboxes.shutdown("k8s.io", "p1")
    await sandboxes.stop("k8s.io", "p1", 0)
    assert (await sandboxes.status("k8s.io", "p1")).state == "SANDBOX_NOTREADY"


@pytest.fixture
def full(sandboxes: PinnedSandboxes, tmp_path: Path) -> Iterator[Path]:
    """A file that can fill the state directory, which is on a file system of its own."""
    state = tmp_path / "state"
    state.mkdir()
    linux.mount("tmpfs", state, "tmpfs", 0, "size=64k")
    try:
        yield state / "filling"
    finally:
        mounting.detach_all(state)


def fill(path: Path) -> None:
    with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def test_a_pod_ends_although_the_disk_is_full(full: Path, sandboxes: PinnedSandboxes, network: Path) -> None:
    await run(sandboxes, network, pid=cri.POD)
    await run(sandboxes, network, "p2")
    fill(full)
    await sandboxes.stop("k8s.io", "p1", 0)
    assert (await sandboxes.status("k8s.io", "p1")).state == "SANDBOX_NOTREADY"
    for id in ("p1", "p2"):
        await sandboxes.shutdown("k8s.io", id)
    full.unlink()
    assert list((full.parent / "k8s.io").iterdir()) == []


async def test_a_pod_that_finds_the_disk_full_leaves_nothing(full: Path, sandboxes: PinnedSandboxes) -> None:
    (full.parent / "k8s.io").mkdir()
    fill(full)
    with pytest.raises(Internal, match=r"sandbox p1 cannot be kept: .*No space left on device: .*/k8s.io/p1/"):
        await sandboxes.create("k8s.io", Sandbox("p1"), options(None))
    full.unlink()
    assert list((full.parent / "k8s.io").iterdir()) == []


async def test_what_a_crash_left_before_the_record_goes(sandboxes: PinnedSandboxes, tmp_path: Path) -> None:
    begun = tmp_path / "state" / "k8s.io" / "p1"
    begun.mkdir(parents=True)
    (begun / ".sandbox.json").touch()
    with pytest.raises(NotFound):
        await sandboxes.shutdown("k8s.io", "p1")
    assert not begun.exists()


async def test_names_are_taken_once(sandboxes: PinnedSandboxes, network: Path) -> None:
    await run(sandboxes, network)
    with pytest.raises(AlreadyExists, match="sandbox p1 already exists"):
        await sandboxes.create("k8s.io", Sandbox("p1"), options(network))
    with pytest.raises(FailedPrecondition, match="was started already"):
        await sandboxes.start("k8s.io", "p1")
    for id in ("../p1", "", "a/b"):
        with pytest.raises(InvalidArgument):
            await sandboxes.create("k8s.io", Sandbox(id), options(network))


async def test_a_sysctl_that_linux_refuses_is_named_and_nothing_is_left(
    sandboxes: PinnedSandboxes, network: Path, tmp_path: Path
) -> None:
    await sandboxes.create("k8s.io", Sandbox("p1"), options(network, sysctls={"net.ipv4.no_such": "1"}))
    with pytest.raises(
        Internal, match=r"sandbox p1 cannot be started: .*sysctl net\.ipv4\.no_such cannot be set to '1'"
    ):
        await sandboxes.start("k8s.io", "p1")
    assert not (tmp_path / "state" / "k8s.io" / "p1").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sysctls": {"kernel.core_pattern": "|/tmp/x"}}, "kernel.core_pattern is not of a namespace that a pod has"),
        ({"sysctls": {"kernel.shmmni": "1\nkernel.core_pattern=|/x"}}, "is not one line"),
        ({"sysctls": {"net.ipv4/../../kernel/x": "1"}}, "is not the name of a sysctl"),
        ({"sysctls": {"../x": "1"}}, "is not the name of a sysctl"),
        ({"network": cri.NODE, "sysctls": {"net.ipv4.ip_forward": "1"}}, "the pod is in the host's network"),
        ({"ipc": cri.NODE, "sysctls": {"kernel.sem": "1"}}, "the pod has the host's IPC namespace"),
        ({"hostname": "x" * 65}, "is longer than 64 bytes"),
    ],
)
def test_what_would_change_the_host_is_refused(changes: dict[str, object], words: str) -> None:
    """Also by a value that has another setting in it (CVE-2022-0811)."""
    with pytest.raises(InvalidArgument, match=words):
        read(Payload(CONFIG, config(**changes).SerializeToString()))


def test_options_that_are_no_pod_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="this sandboxer reads"):
        read(Payload("type.example/other", b""))
    with pytest.raises(InvalidArgument, match="are no runtime"):
        read(Payload(CONFIG, b"\xff\xff"))
    assert read(None).pid


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "/proc/sys/net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_names_of_sysctls_are_read_as_sysctl_8_does(name: str, path: str) -> None:
    assert path_of(name) == path


MAPPED = 700_000


def mapped(pid: int = cri.CONTAINER, network: int = cri.POD) -> SandboxOptions:
    made = config(pid=pid, network=network, hostname="web-1" if network == cri.POD else "")
    if network == cri.POD:
        made.linux.sysctls.update({"kernel.shmmni": "77", "net.ipv4.ip_local_port_range": "1024 2048"})
    user = made.linux.security_context.namespace_options.userns_options
    user.mode = cri.POD
    user.uids.add(container_id=0, host_id=MAPPED, length=65536)
    user.gids.add(container_id=0, host_id=MAPPED, length=65536)
    return SandboxOptions(options=Payload(CONFIG, made.SerializeToString()))


async def test_a_user_namespace_owns_the_others_of_a_pod(sandboxes: PinnedSandboxes, tmp_path: Path) -> None:
    network = tmp_path / "net"
    netns.create_owned(network, f"0:{MAPPED}:65536", f"0:{MAPPED}:65536")
    try:
        await sandboxes.create("k8s.io", Sandbox("p1"), replace(mapped(cri.POD), netns_path=str(network)))
        await sandboxes.start("k8s.io", "p1")
        status = await sandboxes.status("k8s.io", "p1")
        assert status.state == "SANDBOX_READY" and sorted(status.info) == ["ipc", "net", "pid", "user", "uts"]
        owner = inode(status.info["user"])
        for kind in ("ipc", "net", "uts"):
            assert owner_inode(Path(status.info[kind])) == owner != inode("/proc/self/ns/user"), kind
        assert namespaces.within("uts", Path(status.info["uts"]), socket.gethostname) == "web-1"
        shmmni = Path("/proc/sys/kernel/shmmni")
        assert namespaces.within("ipc", Path(status.info["ipc"]), shmmni.read_text) == "77\n"
        assert shmmni.read_text() != "77\n"
        ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
        assert netns.within(network, ports.read_text).split() == ["1024", "2048"]
        init = Path(f"/proc/{status.pid}")
        assert init.stat().st_uid == MAPPED and inode(str(init / "ns/user")) == owner
        assert (init / "uid_map").read_text().split() == ["0", str(MAPPED), "65536"]
    finally:
        netns.remove(network)


async def test_a_pod_of_the_hosts_network_can_have_a_user_namespace(sandboxes: PinnedSandboxes) -> None:
    await sandboxes.create("k8s.io", Sandbox("p1"), mapped(network=cri.NODE))
    await sandboxes.start("k8s.io", "p1")
    status = await sandboxes.status("k8s.io", "p1")
    assert sorted(status.info) == ["ipc", "user"]
    assert owner_inode(Path(status.info["ipc"])) == inode(status.info["user"])


async def test_a_sysctl_that_linux_refuses_leaves_no_user_namespace(sandboxes: PinnedSandboxes, tmp_path: Path) -> None:
    network = tmp_path / "net"
    netns.create_owned(network, f"0:{MAPPED}:65536", f"0:{MAPPED}:65536")
    try:
        wanted = mapped()
        assert wanted.options is not None
        made = cri.PodSandboxConfig.FromString(wanted.options.value)
        made.linux.sysctls["kernel.shmmni"] = "many"
        payload = Payload(CONFIG, made.SerializeToString())
        await sandboxes.create("k8s.io", Sandbox("p1"), SandboxOptions(options=payload, netns_path=str(network)))
        with pytest.raises(Internal, match=r"sysctl kernel\.shmmni cannot be set to 'many'"):
            await sandboxes.start("k8s.io", "p1")
        assert mounting.mounts_below(tmp_path / "state") == []
    finally:
        netns.remove(network)


def owner_inode(path: Path) -> int:
    descriptor = namespaces.owner_of(path)
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


async def test_a_start_that_is_given_up_has_an_outcome_before_its_caller_goes_on(
    sandboxes: PinnedSandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the caller would shut down what is only just being made."""
    loop, entered, go_on, start = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), Pod.start

    def slowly(self: Pod, zygote: Zygote) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(20)
        start(self, zygote)

    monkeypatch.setattr(Pod, "start", slowly)
    await sandboxes.create("default", Sandbox("late"), options(None))
    starting = asyncio.create_task(sandboxes.start("default", "late"))
    await asyncio.wait_for(entered.wait(), 20)
    starting.cancel()
    await asyncio.sleep(0.05)
    assert not starting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await sandboxes.shutdown("default", "late")
    assert mounting.mounts_below(tmp_path / "state") == [] and not (tmp_path / "state" / "default" / "late").exists()
