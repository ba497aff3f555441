"""Mounts that a shim cannot make are made for it, and unmade whenever the task does not come to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from windlass.contracts.activations import ActivateOptions, Activation
from windlass.contracts.mounts import Mount
from windlass.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable
from windlass_runtime_v2.rootfs import Rootfs

PLAIN = (Mount("overlay", "overlay", ("lowerdir=/a:/b",)),)
LAYERED = (Mount("erofs", "/a"), Mount("format/overlay", "overlay"))
MADE = (Mount("bind", "/made/by/a/client"),)
READY = (Mount("overlay", "overlay", ("lowerdir=/made",)),)


@dataclass
class Manager:
    """A mount manager that only remembers."""

    active: dict[tuple[str, str], ActivateOptions] = field(default_factory=dict)
    stuck: bool = False

    def handles(self, mounts: Sequence[Mount]) -> bool:
        return mounts != PLAIN

    def activate(self, namespace: str, name: str, mounts: Sequence[Mount], options: ActivateOptions) -> Activation:
        if (namespace, name) in self.active:
            raise AlreadyExists(name)
        self.active[namespace, name] = options
        return Activation(name, system=READY)

    def info(self, namespace: str, name: str) -> Activation:
        if (namespace, name) not in self.active:
            raise NotFound(name)
        return Activation(name, system=MADE, labels=self.active[namespace, name].labels)

    def deactivate(self, namespace: str, name: str) -> None:
        if self.stuck:
            raise Unavailable("stuck")
        if (namespace, name) not in self.active:
            raise NotFound(name)
        del self.active[namespace, name]


@pytest.fixture
def manager() -> Manager:
    return Manager()


@pytest.fixture
def rootfs(manager: Manager) -> Rootfs:
    return Rootfs(manager)  # type: ignore[arg-type]  # as much of one as is used


async def test_what_a_shim_can_mount_is_left_to_it(rootfs: Rootfs, manager: Manager) -> None:
    """Usual mounts, and all of them where there is no mount manager, are passed on as they are."""
    for each, mounts in ((rootfs, PLAIN), (rootfs, ()), (Rootfs(None), LAYERED)):
        async with each.active("ns", "box", mounts) as given:
            assert given is mounts
        await each.release("ns", "box")
    assert not manager.active


async def test_the_rest_is_held_by_the_container(rootfs: Rootfs, manager: Manager) -> None:
    """Until the task is gone; what an earlier task of the name has left is no obstacle."""
    for _ in range(2):
        async with rootfs.active("ns", "box", LAYERED) as given:
            assert given == READY
    ((key, options),) = manager.active.items()
    assert key == ("ns", "box")
    assert options.labels == {"containerd.io/gc.bref.container": "box"}
    await rootfs.release("ns", "box")
    await rootfs.release("ns", "box")
    assert not manager.active


async def test_what_a_client_has_activated_under_the_name_is_used(rootfs: Rootfs, manager: Manager) -> None:
    """As in containerd; it stays when the task does not come to be, and goes with the task."""
    manager.activate("ns", "box", LAYERED, ActivateOptions(labels={"mine": "yes"}))
    with pytest.raises(FailedPrecondition):
        async with rootfs.active("ns", "box", LAYERED) as given:
            assert given == MADE
            raise FailedPrecondition("no shim")
    assert manager.active
    await rootfs.release("ns", "box")
    assert not manager.active


async def test_a_task_that_fails_leaves_nothing_active(rootfs: Rootfs, manager: Manager) -> None:
    """Whoever created it gets the reason; mounts that are stuck are left to garbage collection."""
    for stuck in (False, True):
        manager.stuck = stuck
        with pytest.raises(FailedPrecondition, match="no shim"):
            async with rootfs.active("ns", "box", LAYERED):
                raise FailedPrecondition("no shim")
    assert manager.active
