"""Containers are created from images and removed, inside the daemon and through its API, by the same code."""

from __future__ import annotations

import pytest
from local.conftest import PLATFORM, Daemon

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import IO, CreateOptions, Status
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from windlass_local import launch, tasks
from windlass_local.launch import Launched, Rootfs
from windlass_local.namespace import Namespace
from windlass_oci.defaults import default_spec
from windlass_oci.payloads import spec_of
from windlass_oci.process import apply_image, set_user
from windlass_oci.runtime_spec import Spec


async def build(rootfs: Rootfs) -> Spec:
    spec = default_spec(rootfs.namespace.name, "box")
    apply_image(spec["process"], rootfs.image)
    set_user(spec["process"], await rootfs.user("5:6"))
    return spec


async def create(namespace: Namespace, image: str, **fields: str) -> Launched:
    wanted = Container("box", image=image, snapshotter="memory", labels={"a": "b"}, **fields)  # type: ignore[arg-type] # strings
    return await launch.create(namespace, wanted, PLATFORM, build)


def kept(daemon: Daemon) -> dict[str, list[str]]:
    """Return the names of what belongs to the container, and all leases."""
    snapshots = daemon.metadata.snapshotter("memory", "tests").walk()
    return {
        "containers": [each.id for each in daemon.metadata.containers("tests").list()],
        "snapshots": [each.name for each in snapshots if each.name == "box"],
        "leases": [each.id for each in daemon.metadata.leases("tests").list()],
    }


async def test_a_container_has_a_snapshot_over_its_image(daemon: Daemon, namespace: Namespace, image: str) -> None:
    """Its spec is what was built, its runtime the default; the lease under which it came about is gone."""
    launched = await create(namespace, image)
    spec = spec_of(await namespace.containers.get("box"))

    assert kept(daemon) == {"containers": ["box"], "snapshots": ["box"], "leases": []}
    assert (launched.container.runtime, launched.container.labels) == ("io.containerd.runc.v2", {"a": "b"})
    assert [mount.type for mount in launched.rootfs] == ["bind"]
    assert spec["process"]["args"] == ["sh"]
    assert spec["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [6]}
    assert spec["linux"]["cgroupsPath"] == "/tests/box"


async def test_the_namespace_says_what_is_left_open(daemon: Daemon, namespace: Namespace, image: str) -> None:
    """By the labels that containerd has for it."""
    namespaces = daemon.metadata.namespaces()
    found = namespaces.get("tests")
    labels = {"containerd.io/defaults/runtime": "io.example.v1"}
    namespaces.update(type(found)("tests", labels), ["labels.containerd.io/defaults/runtime"])

    assert (await create(namespace, image)).container.runtime == "io.example.v1"


async def test_a_spec_that_cannot_be_built_leaves_nothing(daemon: Daemon, namespace: Namespace, image: str) -> None:
    """No snapshot, no record, no lease."""

    async def refuse(rootfs: Rootfs) -> Spec:
        raise InvalidArgument("no arguments specified")

    wanted = Container("box", image=image, snapshotter="memory")
    with pytest.raises(InvalidArgument, match="no arguments"):
        await launch.create(namespace, wanted, PLATFORM, refuse)
    assert kept(daemon) == {"containers": [], "snapshots": [], "leases": []}


async def test_a_name_that_is_taken_is_refused(daemon: Daemon, namespace: Namespace, image: str) -> None:
    """The error speaks of the container, not of its snapshot, and the first one stays whole."""
    await create(namespace, image)
    with pytest.raises(AlreadyExists, match="container box already exists"):
        await create(namespace, image)
    assert kept(daemon) == {"containers": ["box"], "snapshots": ["box"], "leases": []}


async def test_a_running_container_is_removed_by_force_only(daemon: Daemon, namespace: Namespace, image: str) -> None:
    """Task, record and snapshot go together."""
    launched = await create(namespace, image)
    options = CreateOptions(rootfs=launched.rootfs, io=IO(stdout="/out"))
    assert await namespace.tasks.create(launched.container, options) == 7
    await namespace.tasks.start("box")
    process = await namespace.tasks.get("box")
    assert (process.status, process.io.stdout) == (Status.RUNNING, "/out")

    with pytest.raises(FailedPrecondition, match="container box is running; remove it with --force"):
        await launch.remove(namespace, "box")
    await launch.remove(namespace, "box", force=True)
    assert kept(daemon) == {"containers": [], "snapshots": [], "leases": []}
    assert daemon.tasks.processes == {}


async def test_how_a_task_ended(namespace: Namespace, image: str) -> None:
    """Its status and its time arrive; a task that is gone is nothing to remove."""
    launched = await create(namespace, image)
    await namespace.tasks.create(launched.container, CreateOptions())
    await namespace.tasks.start("box")
    await tasks.kill(namespace.tasks, "box")
    exit = await namespace.tasks.wait("box")

    assert (exit.status, exit.at) == (137, 5)
    assert (await namespace.tasks.delete("box")).status == 137
    await tasks.remove(namespace.tasks, "box")
    with pytest.raises(NotFound):
        await tasks.kill(namespace.tasks, "box")


async def test_undoing_hides_no_error(namespace: Namespace) -> None:
    """There may be nothing to remove after a failure."""
    await launch.undo(namespace, "none")


async def test_mounts_that_linux_cannot_make_are_made_by_the_mount_manager(
    daemon: Daemon, namespace: Namespace
) -> None:
    """For as long as they are needed, under the lease."""
    plain = (Mount("bind", "/x"),)
    async with namespace.lease("test") as leased:
        async with leased.mountable(plain) as given:
            assert (tuple(given), daemon.mounts.active) == (plain, set())
        async with leased.mountable((Mount("format/overlay", "overlay"),)) as given:
            assert [mount.source for mount in given] == ["/made"]
            assert len(daemon.mounts.active) == 1
        assert daemon.mounts.leases == [leased.lease_id]
    assert daemon.mounts.active == set()
