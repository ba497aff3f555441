"""Bundle and shim together: both are there when `Launcher.launch` returns, and neither when it fails."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from windlass.contracts.tasks import Exit
from windlass.contracts.values import Payload
from windlass.errors import Error, FailedPrecondition
from windlass.gate import Gate, offloaded
from windlass_linux import cgroups, mounting
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.bundles import Bundles, logged, storage_error
from windlass_runtime_v2.cleaning import Cleaner
from windlass_runtime_v2.foreign import ForeignShims, encode_options
from windlass_runtime_v2.forked import ForkedShims, sweep_sockets
from windlass_runtime_v2.runtimes import Executables
from windlass_runtime_v2.settings import Deadlines
from windlass_runtime_v2.shim import Shim, connect
from windlass_runtime_v2.shimlog import ShimLog
from windlass_runtime_v2.task import is_alive

logger = logging.getLogger(__name__)

MAX_SPEC = 16 << 20

Prepared = tuple[Bundle, ShimLog, Bootstrap, socket.socket]
P = ParamSpec("P")
R = TypeVar("R")


class Launcher:
    """Starts shims, finds them again, and removes what they leave. Methods are for the loop."""

    def __init__(
        self, kind: str, bundles: Bundles, forked: ForkedShims, foreign: ForeignShims, deadlines: Deadlines
    ) -> None:
        """Use ``forked`` for the runtimes that it serves and ``foreign`` for all others."""
        self.bundles = bundles
        self.cleaner = Cleaner(kind, self._clean, deadlines.cleanup)
        self._forked = forked
        self._foreign = foreign
        self._deadlines = deadlines
        self._executables = Executables()
        # File work has threads of its own: a disk that hangs must not keep others from theirs.
        self._disk = Gate("io.containerd.runtime.v2.task bundles")

    async def launch(
        self, namespace: str, id: str, runtime: str, spec: bytes, options: Payload | None
    ) -> tuple[Bundle, Shim]:
        """Make a bundle and start its shim. Raises AlreadyExists, Unavailable, Error for an unknown runtime."""
        if self._forked.serves(runtime):
            return await self._fork(namespace, id, runtime, spec)
        binary = await self.on_disk(self._executables.resolve, runtime)
        bundle = await self.on_disk(self.bundles.create, namespace, id, spec)
        log = None
        try:
            log = await self._open_log(bundle)
            timeout = self._deadlines.request + self._deadlines.spawn
            bootstrap = await self._within(timeout, None, self._foreign.start, bundle, binary, options)
            shim = await connect(bootstrap, namespace)
        except (Error, OSError):
            if log is not None:
                log.close()
            await self._give_up(bundle)
            raise
        shim.gone.add_done_callback(lambda _: log.close())
        return bundle, shim

    async def describe(self, runtime: str, options: Payload | None) -> bytes:
        """Return what a runtime's shim says of it, an encoded RuntimeInfo. Raises Error for an unknown runtime."""
        if self._forked.serves(runtime):
            work = functools.partial(self._forked.describe, runtime)
        else:
            binary = await self.on_disk(self._executables.resolve, runtime)
            work = functools.partial(self._foreign.describe, binary)
        timeout = self._deadlines.cleanup + self._deadlines.spawn
        return await self._within(timeout, None, work, encode_options(options))

    async def find(self, bundle: Bundle, bootstrap: Bootstrap) -> Shim:
        """Connect to the shim that an earlier daemon has started. Raises Unavailable when it is gone."""
        shim = await connect(bootstrap, bundle.namespace)
        if not bootstrap.sandbox:
            with logged(f"task {bundle.id}: cannot read its shim's log"):
                log = await self._open_log(bundle)
                shim.gone.add_done_callback(lambda _: log.close())
        return shim

    async def _open_log(self, bundle: Bundle) -> ShimLog:
        log = await self._within(self._deadlines.disk, ShimLog.close, ShimLog, bundle)
        log.follow()
        return log

    async def _clean(self, bundle: Bundle, bootstrap: Bootstrap | None, seconds: float) -> Exit | None:
        """End what a shim that is gone has left, and remove the bundle; return how the task ended, if known.

        Raises Error or OSError when something is left; then the bundle is there still.
        """
        exit = None
        if bootstrap is not None and bootstrap.runtime:
            await self._forked.clean(bundle, bootstrap.runtime, seconds)
        elif binary := await self.on_disk(bundle.read_shim_binary):
            timeout = seconds + self._deadlines.spawn
            try:
                exit = await self._within(timeout, None, self._foreign.clean, bundle, binary, seconds)
            except Error as error:
                # Those of containerd fail, too, when they never came to make anything.
                if not await self.on_disk(is_unused, bundle):
                    raise
                logger.info("task %s: nothing is left, although %s", bundle.id, error)
            if bootstrap is not None and bootstrap.address.startswith("unix:///"):
                # Only if no process listens: the shim may be shared, and then it lives.
                await self.on_disk(sweep_sockets, [Path(bootstrap.address.removeprefix("unix://"))])
        await self.on_disk(remove_groups, bundle)
        await self.remove(bundle, bootstrap)
        return exit

    async def _give_up(self, bundle: Bundle) -> None:
        """Remove a bundle whose shim did not start, though it may have left something."""
        try:
            await self._clean(bundle, None, self._deadlines.cleanup)
        except (Error, OSError) as error:
            logger.warning("task %s: cannot clean up after its shim, which did not start: %s", bundle.id, error)
            await self.remove(bundle, None)

    async def remove(self, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
        """Remove a bundle whose shim has cleaned up; what cannot be removed is in the log."""
        with logged(f"task {bundle.id}: cannot remove its bundle"):
            await self.on_disk(_remove, self.bundles, bundle, bootstrap)

    async def hide(self, bundle: Bundle, bootstrap: Bootstrap) -> list[Path]:
        """Free the name of a bundle whose shim has cleaned up; `bundles.sweep` deletes what this returns."""
        hidden: list[Path] = []
        with logged(f"task {bundle.id}: cannot remove its bundle"):
            hidden = await self.on_disk(_hide, self.bundles, bundle, bootstrap)
        return hidden

    async def on_disk(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do file work in a thread. Raises DeadlineExceeded."""
        return await self._within(self._deadlines.disk, None, function, *args, **kwargs)

    def close(self) -> None:
        """Take no further work."""
        self._disk.close()

    async def _fork(self, namespace: str, id: str, runtime: str, spec: bytes) -> tuple[Bundle, Shim]:
        prepare = functools.partial(self._prepare, namespace, id, runtime, spec)
        bundle, log, bootstrap, listener = await self._within(self._deadlines.disk, self._discard, prepare)
        log.follow()
        try:
            shim = await self._forked.start(bundle, bootstrap, listener)
        except Error:
            log.close()
            await self.remove(bundle, bootstrap)
            raise
        shim.gone.add_done_callback(lambda _: log.close())
        return bundle, shim

    def _prepare(self, namespace: str, id: str, runtime: str, spec: bytes) -> Prepared:
        bundle = self.bundles.create(namespace, id, spec)
        log = None
        try:
            log = ShimLog(bundle)
            return bundle, log, *self._forked.prepare(bundle, runtime)
        except OSError as error:
            if log is not None:
                log.close()
            self.bundles.remove(bundle)
            raise storage_error(f"make the socket and log of task {id}'s shim", bundle.path, error) from error

    def _discard(self, prepared: Prepared) -> None:
        bundle, log, bootstrap, listener = prepared
        log.close()
        listener.close()
        _remove(self.bundles, bundle, bootstrap)

    async def _within(
        self,
        timeout: float,
        discard: Callable[[R], object] | None,
        function: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        name = getattr(function, "__name__", "file work")
        return await offloaded(self._disk.guard(function, name), deadline=timeout, discard=discard)(*args, **kwargs)


def is_unused(bundle: Bundle) -> bool:
    """Return whether nothing is to be seen of a container: no process, and no mount of its root filesystem."""
    if is_alive(bundle.init_pid()) or mounting.mounts_below(bundle.rootfs):
        return False
    return not any(cgroups.processes_in(group) for group in groups_of(bundle))


def groups_of(bundle: Bundle) -> list[str]:
    """Return the control groups of a bundle's container."""
    spec = b""
    with contextlib.suppress(OSError), (bundle.path / "config.json").open("rb") as file:
        spec = file.read(MAX_SPEC)
    return cgroups.groups_of(spec, bundle.id)


def remove_groups(bundle: Bundle) -> None:
    """Remove a container's control groups, of which its runtime may know nothing; one in use by others stays.

    Raises FailedPrecondition when the container's own process is in it.
    """
    pid = bundle.init_pid()
    for group in cgroups.remove_within(groups_of(bundle)):
        if pid and pid in cgroups.processes_in(group):
            raise FailedPrecondition(f"its process {pid} runs on in control group {group}")
        logger.warning("task %s: control group %s stays: it is in use", bundle.id, group)


def _remove(bundles: Bundles, bundle: Bundle, bootstrap: Bootstrap | None) -> None:
    _remove_socket(bootstrap)
    bundles.remove(bundle)


def _hide(bundles: Bundles, bundle: Bundle, bootstrap: Bootstrap) -> list[Path]:
    _remove_socket(bootstrap)
    return bundles.hide(bundle)


def _remove_socket(bootstrap: Bootstrap | None) -> None:
    if bootstrap is not None and bootstrap.forked:
        Path(bootstrap.address.removeprefix("unix://")).unlink(missing_ok=True)
