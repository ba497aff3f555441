"""The mount manager through the daemon's socket: activations that outlive the daemon and go with what holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat.machines import Machine
from compat.scratch_daemon import needs_ctr, needs_root
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.containerd.services.mounts.v1 import mounts_pb2 as pb
from windlass_api.containerd.services.mounts.v1 import mounts_pb2_grpc
from windlass_api.containerd.types import mount_pb2

pytestmark = [needs_root, needs_ctr]

TMPFS = mount_pb2.Mount(type="tmpfs", source="tmpfs", options=["size=64k"])
OVERLAY = mount_pb2.Mount(type="format/overlay", source="overlay", options=["lowerdir={{ overlay 1 0 }}", "ro"])


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine("windlass", tmp_path_factory.mktemp("mounts"))
    machine.start()
    yield machine
    machine.close()


@contextlib.contextmanager
def mounts_of(machine: Machine) -> Iterator[mounts_pb2_grpc.MountsStub]:
    with grpc.insecure_channel(f"unix:{machine.address}") as channel:
        yield mounts_pb2_grpc.MountsStub(channel)


def heads(machine: Machine, lease: str = "") -> tuple[tuple[str, str], ...]:
    return (("containerd-namespace", machine.namespace), *([("containerd-lease", lease)] if lease else []))


def test_an_activation_outlives_the_daemon_and_goes_with_its_lease(machine: Machine) -> None:
    """Made, described, labelled and listed; found again after a crash; collected when its lease is deleted."""
    machine.ctr("leases", "create", "--id", "lease")
    with mounts_of(machine) as mounts:
        request = pb.ActivateRequest(name="one", mounts=[TMPFS, TMPFS, OVERLAY], labels={"a": "b"})
        made = mounts.Activate(request, metadata=heads(machine, "lease"), timeout=10).info
        places = [each.mount_point for each in made.active]
        assert made.system[0].options == [f"lowerdir={places[1]}:{places[0]}", "ro"]
        assert all(each.mounted_at.seconds for each in made.active)
        assert sorted(places) == sorted(machine.mounts())
        with pytest.raises(grpc.RpcError, match="mount one exists already"):
            mounts.Activate(request, metadata=heads(machine), timeout=10)
        with pytest.raises(grpc.RpcError, match=r"StatusCode\.UNIMPLEMENTED"):
            mounts.Activate(pb.ActivateRequest(name="two", mounts=[TMPFS]), metadata=heads(machine), timeout=10)

    machine.kill()
    machine.start()
    machine.collect_garbage()
    with mounts_of(machine) as mounts:
        assert mounts.Info(pb.InfoRequest(name="one"), metadata=heads(machine), timeout=10).info == made
        update = pb.UpdateRequest(
            info=mount_pb2.ActivationInfo(name="one", labels={"c": "d"}), update_mask=FieldMask(paths=["labels.c"])
        )
        made.labels["c"] = "d"
        assert mounts.Update(update, metadata=heads(machine), timeout=10).info == made
        listed = mounts.List(pb.ListRequest(filters=["labels.c==d"]), metadata=heads(machine), timeout=10)
        assert [each.info for each in listed] == [made]
        machine.ctr("leases", "rm", "--sync", "lease")
        with pytest.raises(grpc.RpcError, match="mount one does not exist"):
            mounts.Deactivate(pb.DeactivateRequest(name="one"), metadata=heads(machine), timeout=10)
    assert not machine.mounts()
    assert not list(Path(machine.state, "io.containerd.mount-manager.v1.bolt/t").iterdir())


def test_what_a_container_s_label_keeps_goes_with_the_container(machine: Machine) -> None:
    """An activation with a back reference needs no lease."""
    with mounts_of(machine) as mounts:
        labels = {"containerd.io/gc.bref.container": "box"}
        _keep(machine)
        request = pb.ActivateRequest(name="kept", mounts=[TMPFS], labels=labels, temporary=True)
        (bind,) = mounts.Activate(request, metadata=heads(machine), timeout=10).info.system
        assert (bind.type, list(bind.options)) == ("bind", ["rw", "rbind"])
        assert machine.mounts() == [bind.source]
        machine.collect_garbage()
        assert machine.mounts() == [bind.source]
        machine.ctr("containers", "rm", "box")
        machine.collect_garbage()
        assert not machine.mounts()


def _keep(machine: Machine) -> None:
    with grpc.insecure_channel(f"unix:{machine.address}") as channel:
        container = containers_pb2.Container(
            id="box",
            runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2"),
            spec=AnyMessage(type_url="x"),
        )
        request = containers_pb2.CreateContainerRequest(container=container)
        containers_pb2_grpc.ContainersStub(channel).Create(request, metadata=heads(machine), timeout=10)
