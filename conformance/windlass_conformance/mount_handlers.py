"""The promises of `windlass.contracts.activations.MountHandler`, one test each (docs/containerd 3.19, 8.7).

The subclass provides the fixtures ``handler`` and ``mount``, something that the handler can mount; ``broken`` is
something of its type that it cannot.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass.contracts.activations import MountHandler
from windlass.contracts.mounts import Mount
from windlass.errors import Error
from windlass_conformance.snapshot_files import needs_root


@needs_root
class MountHandlerSuite:
    """The promises of a mount handler; the module says how to run the suite."""

    certifies = "mount-handler"

    @pytest.fixture
    def handler(self) -> MountHandler:
        """Give the handler under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the mount handler under test")

    @pytest.fixture
    def mount(self) -> Mount:
        """Give a mount for it; the subclass provides it."""
        raise NotImplementedError("the subclass provides a mount that the handler can make")

    @pytest.fixture
    def broken(self, mount: Mount, tmp_path: Path) -> Mount:
        """Give a mount that cannot be made: its source is not there."""
        return Mount(mount.type, str(tmp_path / "nowhere"), mount.options)

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        """Give a path where nothing is."""
        return str(tmp_path / "place")

    def leave_half(self, place: str) -> None:
        """Leave what the handler makes before it mounts: a directory, unless the subclass knows better."""
        Path(place).mkdir(0o700)

    def test_a_mount_is_made_at_its_place(self, handler: MountHandler, mount: Mount, place: str) -> None:
        """After mount the place shows the mount, and the answer has its type, place and time."""
        made = handler.mount(mount, place, ())
        try:
            assert os.path.lexists(made.mount_point)
            assert made.mount_point == place
            assert made.mount == mount
            assert made.mounted_at > 0
            assert handler.is_mounted(place)
        finally:
            handler.unmount(place)

    def test_nothing_is_left_of_what_is_undone(self, handler: MountHandler, mount: Mount, place: str) -> None:
        """After unmount there is nothing at the place, and nothing is mounted."""
        handler.mount(mount, place, ())
        handler.unmount(place)
        _nothing_at(handler, place)

    def test_what_was_undone_can_be_made_again(self, handler: MountHandler, mount: Mount, place: str) -> None:
        """After unmount, a place can be mounted again."""
        for _ in range(3):
            handler.mount(mount, place, ())
            handler.unmount(place)
        _nothing_at(handler, place)

    def test_undoing_twice_is_no_error(self, handler: MountHandler, mount: Mount, place: str) -> None:
        """Unmount of an unmounted place does nothing: a daemon that died may have unmounted it."""
        handler.unmount(place)
        handler.mount(mount, place, ())
        handler.unmount(place)
        handler.unmount(place)
        _nothing_at(handler, place)

    def test_half_of_a_mount_is_undone(self, handler: MountHandler, place: str) -> None:
        """Unmount also removes what a daemon left at the place that died before it had mounted."""
        self.leave_half(place)
        assert not handler.is_mounted(place)
        handler.unmount(place)
        _nothing_at(handler, place)

    def test_a_mount_that_fails_leaves_nothing(self, handler: MountHandler, broken: Mount, place: str) -> None:
        """A mount that cannot be made is an error, and nothing is at the place."""
        with pytest.raises((OSError, Error)):
            handler.mount(broken, place, ())
        _nothing_at(handler, place)

    def test_places_are_apart(self, handler: MountHandler, mount: Mount, tmp_path: Path) -> None:
        """The same thing can be mounted twice, and undone one by one."""
        one, two = str(tmp_path / "one"), str(tmp_path / "two")
        handler.mount(mount, one, ())
        handler.mount(mount, two, ())
        handler.unmount(one)
        assert handler.is_mounted(two) and not handler.is_mounted(one)
        handler.unmount(two)
        _nothing_at(handler, two)

    def test_what_is_nowhere_is_not_mounted(self, handler: MountHandler, place: str) -> None:
        """is_mounted of a place that does not exist is False."""
        assert not handler.is_mounted(place)


def _nothing_at(handler: MountHandler, place: str) -> None:
    assert not handler.is_mounted(place)
    assert not os.path.lexists(place)
    assert place not in Path("/proc/self/mountinfo").read_text()
