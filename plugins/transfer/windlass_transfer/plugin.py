"""Registers the streams, and the transferrer."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from windlass.config import durations
from windlass.contracts.diff import DIFFER
from windlass.contracts.gc import GC
from windlass.contracts.metadata import METADATA
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.contracts.streaming import STREAMS, Streams
from windlass.contracts.transfer import TRANSFER, Transferrer
from windlass.contracts.verifiers import IMAGE_VERIFIER
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass.contracts.transfer import Unpack
    from windlass_transfer.local import LocalTransfer


@dataclass(frozen=True)
class UnpackConfig:
    """One ``unpack_config``."""

    #: Platform of the images that this is for; empty for this machine's.
    platform: str = ""
    snapshotter: str = "overlayfs"
    #: ID of a differ that is asked before others.
    differ: str = ""


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.transfer.v1.local``."""

    #: Layers that are fetched at a time, in all pulls together.
    max_concurrent_downloads: int = 3
    #: Blobs that are sent at a time, in all pushes together.
    max_concurrent_uploaded_layers: int = 3
    #: Connections over which one layer of 64 MiB or more is fetched.
    connections_per_layer: int = 3
    #: Layers of one image that are applied at a time, where the snapshotter can rebase.
    max_concurrent_unpacks: int = 2
    #: Unpack for the platforms in ``unpack_config`` alone; else their operating system is enough.
    check_platform_supported: bool = False
    #: Directories with hosts.toml files, separated by colons; a client may name others.
    config_path: str = "/etc/containerd/certs.d:/etc/docker/certs.d"
    #: Snapshotters for clients that name none, the first whose platform fits.
    unpack_config: list[UnpackConfig] = field(default_factory=lambda: [UnpackConfig()])
    #: IDs of the differs to ask, in order.
    differs: tuple[str, ...] = ("walking",)
    #: How long a pull's registry may bring less than 16 KiB while it is asked; "0s" for ever.
    image_pull_progress_timeout: str = "5m0s"

    def differs_in_order(self) -> tuple[str, ...]:
        """Return the IDs of all differs to ask: those of ``unpack_config`` first, each once."""
        return tuple(dict.fromkeys([*(each.differ for each in self.unpack_config if each.differ), *self.differs]))

    def patience(self) -> float:
        """Return ``image_pull_progress_timeout`` in seconds."""
        return durations.seconds(self.image_pull_progress_timeout)

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would ever be done."""
        for name in ("max_concurrent_downloads", "max_concurrent_uploaded_layers", "max_concurrent_unpacks"):
            if not 0 < getattr(self, name) <= 64:
                raise ValueError(f"{name} has to be between 1 and 64")
        if not 0 < self.connections_per_layer <= 8:
            raise ValueError("connections_per_layer has to be between 1 and 8; each holds 8 MiB in memory")
        if self.patience() < 0:
            raise ValueError('image_pull_progress_timeout has to be a duration such as "5m", or "0s" for none')


def init_streams(context: InitContext) -> Streams:
    """Keep streams, and have them collected with their leases."""
    from windlass_transfer.streams import StreamManager

    manager = StreamManager(context.loop)
    context.single(METADATA).collect_from("stream", manager)
    return manager


LIVE = (
    "max_concurrent_downloads",
    "max_concurrent_uploaded_layers",
    "connections_per_layer",
    "max_concurrent_unpacks",
    "check_platform_supported",
    "config_path",
    "unpack_config",
    "image_pull_progress_timeout",
)
"""Keys whose new values the transfers that begin after a reload go by."""


def init_transfer(context: InitContext) -> Transferrer:
    """Move images, judged by every verifier that there is."""
    from windlass_transfer.admission import Admission, failed_verifiers
    from windlass_transfer.late import LateTransfer

    unpacks(context.config(Config))
    capabilities = {
        record.id: frozenset(record.meta.capabilities)
        for record in context.records()
        if record.type == SNAPSHOTTER.uri and record.instance is not None
    }
    differs = {id: context.by_id(DIFFER, id) for id in context.config(Config).differs_in_order()}
    metadata, collector = context.single(METADATA), context.single(GC)
    admission = Admission(context.all(IMAGE_VERIFIER), context.hooks, failed_verifiers(context.records()))

    def make() -> LocalTransfer:
        from windlass_local.store import Parts
        from windlass_registry.client import roots_of
        from windlass_transfer.local import LocalTransfer, Settings
        from windlass_transfer.workers import tools

        config = context.config(Config)
        parts = Parts(metadata, collector, differs, capabilities, config.patience())
        counts = config.max_concurrent_downloads, config.max_concurrent_uploaded_layers, config.connections_per_layer
        roots, strict = roots_of(config.config_path), config.check_platform_supported
        settings = Settings(roots, unpacks(config), config.max_concurrent_unpacks, strict)
        return LocalTransfer(parts, tools(*counts), admission, settings)

    transfer = LateTransfer(make)

    async def renew() -> None:
        unpacks(context.config(Config))
        await transfer.renew()

    context.on_reload(LIVE, renew)
    context.on_stop(transfer.close)
    return transfer


def unpacks(config: Config) -> tuple[Unpack, ...]:
    """Return which snapshotter unpacks which platform. Raises InvalidArgument for one that cannot be read."""
    from windlass.contracts.transfer import Unpack
    from windlass_images import platforms

    try:
        return tuple(
            Unpack(platforms.parse(each.platform) if each.platform else platforms.host(), each.snapshotter)
            for each in config.unpack_config
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"unpack_config: {error}") from None


STREAMS_PLUGIN = Plugin(STREAMS, id="manager", init=init_streams, requires=(METADATA,))
TRANSFER_PLUGIN = Plugin(
    TRANSFER,
    id="local",
    init=init_transfer,
    requires=(METADATA, GC, DIFFER, SNAPSHOTTER, IMAGE_VERIFIER),
    config=Config,
    later=("windlass_registry.client", "windlass_transfer.local"),
)
