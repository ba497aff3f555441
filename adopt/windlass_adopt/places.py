"""Where a containerd keeps things, and where Windlass will look for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windlass.config.loading import Config

METADATA = "io.containerd.metadata.v1.bolt"
CONTENT = "io.containerd.content.v1.content"
TASKS = "io.containerd.runtime.v2.task"
OLD_TASKS = "io.containerd.runtime.v1.linux"
CRI = "io.containerd.grpc.v1.cri"
SANDBOXES = "io.containerd.sandbox.controller.v1.shim"
SNAPSHOTTER = "io.containerd.snapshotter.v1"
META_DB = "meta.db"
SNAPSHOT_DB = "metadata.db"
SOCKET = "containerd.sock"
KEPT = "containerd"
"""Directory of containerd's databases, next to the journal."""

SNAPSHOTTERS = ("overlayfs", "native", "btrfs", "blockfile", "erofs")
"""Those whose files both daemons understand."""


@dataclass(frozen=True)
class Places:
    """The directories of both; they may be the same ones."""

    source: Path
    source_state: Path
    root: Path
    state: Path
    address: str
    """Of the daemon that will serve; its ttrpc socket has another suffix."""
    ttrpc_address: str
    snapshot_roots: Mapping[str, Path] = field(default_factory=dict)
    """Directories of snapshotters that the configuration puts elsewhere."""

    @property
    def meta_db(self) -> Path:
        """The database of containerd's records."""
        return self.source / METADATA / META_DB

    @property
    def aside(self) -> Path:
        """Where what is not used any more is kept, below the root."""
        return self.root / "adoption" / "replaced"

    @property
    def staged(self) -> Path:
        """Where databases are made, below the root."""
        return self.root / "adoption" / "staged"

    def snapshots(self, name: str) -> Path:
        """Where containerd has a snapshotter's files."""
        return self.source / f"{SNAPSHOTTER}.{name}"

    def own_snapshots(self, name: str) -> Path:
        """Where Windlass will have them."""
        return self.snapshot_roots.get(name, self.root / f"{SNAPSHOTTER}.{name}")


def places_of(config: Config, source: Path, source_state: Path) -> Places:
    """Return the directories of a containerd and of a Windlass that is configured so."""
    roots = {}
    for name in SNAPSHOTTERS:
        settings = config.plugins.get(f"{SNAPSHOTTER}.{name}")
        if path := getattr(settings, "root_path", ""):
            roots[name] = Path(path)
    return Places(
        source.resolve(),
        source_state.resolve(),
        config.root.resolve(),
        config.state.resolve(),
        config.grpc_address,
        config.ttrpc_address,
        roots,
    )
