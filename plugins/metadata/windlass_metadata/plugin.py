"""Registers the metadata store, the scheduler of its garbage collection, and the stores that clients look up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.config import durations
from windlass.contracts.checks import CHECK, Checked
from windlass.contracts.content import CONTENT
from windlass.contracts.events import EXCHANGE
from windlass.contracts.gc import GC, Collector
from windlass.contracts.leases import LEASE_STORES, LeaseStores
from windlass.contracts.metadata import METADATA, Metadata
from windlass.contracts.sandboxes import SANDBOX_STORES, SandboxStores
from windlass.contracts.snapshots import SNAPSHOTTER
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass

if TYPE_CHECKING:
    from windlass_metadata.scheduler import Policy

OPEN_TIMEOUT = "io.containerd.timeout.bolt.open"
SHORTEST_OPEN_TIMEOUT = 1.0


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.metadata.v1.bolt``."""

    #: "shared": a namespace that names a blob which another one has need not send it again.
    #: "isolated": only blobs of namespaces labelled containerd.io/namespace.shareable=true.
    content_sharing_policy: str = "shared"
    #: Do not wait for the disk: faster, and a power failure may take back the last changes.
    no_sync: bool = False


@dataclass(frozen=True)
class SchedulerConfig:
    """Configuration of ``io.containerd.gc.v1.scheduler``."""

    #: The share of all time that garbage collection may take, from 0 to 0.5.
    pause_threshold: float = 0.02
    #: Collect at once after so many deletions; 0 leaves it to pause_threshold.
    deletion_threshold: int = 0
    #: Collect after so many changes of any kind; 0 is never.
    mutation_threshold: int = 100
    #: How long to wait after something has called for a collection.
    schedule_delay: str = "0ms"
    #: How long to wait before the first collection.
    startup_delay: str = "100ms"


def init(context: InitContext) -> Metadata:
    """Open the database and wrap the stores that have started."""
    from windlass_metadata.database import Database
    from windlass_metadata.store import MetadataStore

    config = context.config(Config)
    if config.content_sharing_policy not in ("shared", "isolated"):
        raise InvalidArgument(
            f'content_sharing_policy is "{config.content_sharing_policy}"; it must be "shared" or "isolated"'
        )
    path = context.root / "meta.db"
    wait = max(context.timeout(OPEN_TIMEOUT), SHORTEST_OPEN_TIMEOUT)
    database = Database(path, wait=wait, sync=not config.no_sync)
    context.on_stop(database.close)
    context.meta.exports.update(policy=config.content_sharing_policy, path=str(path))
    return MetadataStore(
        database,
        context.single(CONTENT),
        context.all(SNAPSHOTTER),
        context.single(EXCHANGE),
        shared=config.content_sharing_policy == "shared",
    )


def init_scheduler(context: InitContext) -> Collector:
    """Schedule collections once the daemon has started."""
    from windlass_metadata.scheduler import Scheduler

    config = context.config(SchedulerConfig)
    scheduler = Scheduler(context.single(METADATA), policy(config))
    context.meta.exports.update(exported(config))

    def configure() -> None:
        config = context.config(SchedulerConfig)
        scheduler.configure(policy(config))
        context.meta.exports.update(exported(config))

    keys = ("pause_threshold", "deletion_threshold", "mutation_threshold", "schedule_delay")
    context.on_reload(keys, configure)
    context.on_start(scheduler.start)
    context.on_stop(scheduler.stop)
    return scheduler


def policy(config: SchedulerConfig) -> Policy:
    """Return when to collect. Raises InvalidArgument."""
    from windlass_metadata.scheduler import Policy

    return Policy(
        pause_threshold=config.pause_threshold,
        deletion_threshold=config.deletion_threshold,
        mutation_threshold=config.mutation_threshold,
        schedule_delay=_seconds("schedule_delay", config.schedule_delay),
        startup_delay=_seconds("startup_delay", config.startup_delay),
    )


def exported(config: SchedulerConfig) -> dict[str, str]:
    """Return what `ctr plugins ls -d` shows."""
    return {
        "PauseThreshold": str(config.pause_threshold),
        "DeletionThreshold": str(config.deletion_threshold),
        "MutationThreshold": str(config.mutation_threshold),
        "ScheduleDelay": durations.write(_seconds("schedule_delay", config.schedule_delay)),
    }


def init_leases(context: InitContext) -> LeaseStores:
    """Find the metadata store."""
    return context.single(METADATA)


def init_sandboxes(context: InitContext) -> SandboxStores:
    """Find the metadata store."""
    return context.single(METADATA)


def init_check(context: InitContext) -> Checked:
    """Find the metadata store."""
    return context.single(METADATA)


def _seconds(key: str, text: str) -> float:
    try:
        return max(0.0, durations.seconds(text))
    except ValueError as error:
        raise InvalidArgument(f"{key}: {error}") from None


PLUGIN = Plugin(METADATA, id="bolt", init=init, requires=(CONTENT, EXCHANGE, SNAPSHOTTER), config=Config)
SCHEDULER = Plugin(GC, id="scheduler", init=init_scheduler, requires=(METADATA,), config=SchedulerConfig)
LEASES = Plugin(LEASE_STORES, id="manager", init=init_leases, requires=(METADATA, GC))
SANDBOXES = Plugin(SANDBOX_STORES, id="local", init=init_sandboxes, requires=(METADATA,))
CHECKED = Plugin(CHECK, id="metadata", init=init_check, requires=(METADATA,))
