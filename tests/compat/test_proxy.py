"""Plugins across daemons: containerd runs on a snapshotter of ours, Windlass on one in another process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine, eventually
from compat.test_sandboxes import Client, refused
from proxy.test_proxies import NATIVE, served
from remote.test_sandbox_controller import RECORD, Controller
from remote.test_sandbox_controller import served as controller_served

from windlass_remote.records import to_record

IMAGE = "docker.io/library/proxied:1"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An image of two layers."""
    require_foreign_tools()
    layers = [busybox_layer(), layer({"data/new": b"new\n"}, ("data",))]
    return Archive(tmp_path_factory.mktemp("image") / "image.tar", IMAGE, layers)


@pytest.fixture(params=["containerd", "windlass"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A daemon whose snapshotter ``mine`` is behind a socket."""
    require_foreign_tools()
    (tmp_path / "d").mkdir()
    machine = Machine(request.param, tmp_path / "d")
    with (tmp_path / "d/config.toml").open("a") as config:
        config.write(f'\n[proxy_plugins.mine]\ntype = "snapshot"\naddress = "{tmp_path}/p.sock"\n')
    try:
        yield machine
    finally:
        machine.close()


def run(machine: Machine, name: str) -> str:
    return machine.ctr("run", "--rm", "--snapshotter", "mine", IMAGE, name, "/bin/cat", "/data/new")


def test_a_container_runs_on_a_snapshotter_in_another_process(
    machine: Machine, archive: Archive, tmp_path: Path
) -> None:
    """Which may die: then callers are told, others go on, and all works again when it is back."""
    with served(tmp_path, NATIVE):
        machine.start()
        machine.ctr("images", "import", "--snapshotter", "mine", str(archive.path))
        assert run(machine, "first") == "new\n"
        assert "mine" in machine.ctr("plugins", "ls")
    failed = machine.try_ctr("snapshots", "--snapshotter", "mine", "ls")
    assert failed.returncode and ("unavailable" in failed.stderr.lower() or "cannot be reached" in failed.stderr)
    machine.ctr("snapshots", "--snapshotter", "native", "ls")
    with served(tmp_path, NATIVE):
        eventually(lambda: machine.try_ctr("snapshots", "--snapshotter", "mine", "ls").returncode == 0)
        assert run(machine, "second") == "new\n"


def test_layers_are_unpacked_in_another_process(archive: Archive, tmp_path: Path) -> None:
    """Which reads them out of the daemon's store; containerd 1.6 knows no proxies of differs, and panics."""
    (tmp_path / "d").mkdir()
    machine = Machine("windlass", tmp_path / "d")
    with (tmp_path / "d/config.toml").open("a") as config:
        config.write(f'\n[proxy_plugins.mine]\ntype = "diff"\naddress = "{tmp_path}/p.sock"\n')
        config.write('[plugins."io.containerd.grpc.v1.diff"]\ndefault = ["mine"]\n')
    try:
        with served(tmp_path, "io.containerd.differ.v1.walking", "--content", machine.address):
            machine.start()
            machine.ctr("images", "import", str(archive.path))
            assert machine.ctr("run", "--rm", IMAGE, "box", "/bin/cat", "/data/new") == "new\n"
        failed = machine.try_ctr("images", "import", "--snapshotter", "native", str(archive.path))
        assert failed.returncode and "proxy plugin mine cannot be reached" in failed.stderr
    finally:
        machine.close()


def test_a_sandbox_is_run_by_a_controller_in_another_process(tmp_path: Path) -> None:
    """Its calls and events are those of any other; one that is away is an error."""
    machine = Machine("windlass", tmp_path)
    machine.configure(f'[proxy_plugins.mine]\ntype = "sandbox"\naddress = "{tmp_path}/p.sock"\nexports = {{ a = "b" }}')
    controller, answers = Controller(), []
    try:
        machine.start()
        assert "a            b" in machine.ctr("plugins", "ls", "-d", "id==mine")
        client = Client(machine)
        with controller_served(controller, tmp_path):
            client("Create", "box", "mine", sandbox=to_record(RECORD))
            assert client("Start", "box", "mine").pid == 7
            assert client("Status", "box", "mine").state == "READY"
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(client, "Wait", "box", "mine")
                assert controller.waiting.wait(10)
                controller.over.set()
                answers.append(waiting.result().exit_status)
        with refused(grpc.StatusCode.UNAVAILABLE, "proxy plugin mine cannot be reached"):
            client("Status", "box", "mine")
    finally:
        machine.close()
    assert answers == [4]
