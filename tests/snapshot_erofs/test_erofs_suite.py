"""The erofs snapshotter keeps the contract, its mounts carried out by the mount manager."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from snapshot_erofs.conftest import needs_erofs

from windlass.contracts.activations import ActivateOptions
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Snapshotter, Usage
from windlass.errors import NotFound
from windlass_conformance import snapshot_files as suite
from windlass_conformance.snapshots import SnapshotterSuite
from windlass_mounts.manager import ActiveMounts
from windlass_snapshot_erofs.handler import ErofsHandler
from windlass_snapshot_erofs.images import Images
from windlass_snapshot_erofs.probe import probe
from windlass_snapshot_erofs.snapshotter import ErofsSnapshotter

pytestmark = needs_erofs
NS = "testsuite"


def name_of(key: str) -> str:
    """Return what an activation is called, whose names are shorter than keys may be."""
    return hashlib.sha256(key.encode()).hexdigest()


class Activated:
    """A snapshotter whose mounts are active, so that mount(2) alone can make what is returned."""

    def __init__(self, inner: ErofsSnapshotter, manager: ActiveMounts) -> None:
        self._inner = inner
        self._manager = manager
        self.stat, self.update, self.usage = inner.stat, inner.update, inner.usage
        self.walk, self.cleanup, self.close = inner.walk, inner.cleanup, inner.close

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._activated(key, self._inner.mounts(key))

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._activated(key, self._inner.prepare(key, parent, labels))

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._activated(key, self._inner.view(key, parent, labels))

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self._inner.commit(name, key, labels, parent)
        self._release(key)

    def remove(self, key: str) -> None:
        self._inner.remove(key)
        self._release(key)

    def _activated(self, key: str, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        if not self._manager.handles(mounts):
            return mounts
        self._release(key)
        return tuple(self._manager.activate(NS, name_of(key), mounts, ActivateOptions()).system)

    def _release(self, key: str) -> None:
        try:
            self._manager.deactivate(NS, name_of(key))
        except NotFound:
            pass


class TestErofs(SnapshotterSuite):
    @pytest.fixture(autouse=True)
    def _fewer_layers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each layer is a program run and a mount for every layer on top of it: 128 take 14 seconds, and pass too."""
        monkeypatch.setattr(suite, "LAYERS", 24)

    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Iterator[Snapshotter]:
        root, images = tmp_path / "root", Images()
        manager = ActiveMounts(tmp_path / "mounts", {"erofs": ErofsHandler()}, (tmp_path,), lambda *_: None)
        inner = ErofsSnapshotter(root, images, probe(root, images, tmp_path / "state"))
        yield Activated(inner, manager)
        for each in manager.list(NS):
            manager.deactivate(NS, each.name)
        manager.close()
        inner.close()

    def test_usage_counts_inodes_and_bytes(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        """Usage grows with what is written, counts hard links once, and is that of the image after commit."""
        mounts = snapshotter.prepare("key")
        empty = snapshotter.usage("key")
        with suite.shown(mounts, tmp_path) as root:
            (root / "file").write_bytes(b"x" * 100_000)
            (root / "link").hardlink_to(root / "file")
        full = snapshotter.usage("key")
        snapshotter.commit("name", "key")

        assert full.inodes == empty.inodes + 1
        assert 100_000 <= full.size - empty.size < 200_000
        (image,) = (tmp_path / "root/snapshots").glob("*/layer.erofs")
        assert snapshotter.usage("name") == Usage(1, image.stat().st_blocks * 512)
