"""The mount manager: activations from their beginning to their end, whatever comes in between."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from windlass.contracts.activations import ActivateOptions, Activation, ActiveMount, MountHandler, MountManager
from windlass.contracts.metadata import Collectible
from windlass.contracts.mounts import Mount
from windlass.contracts.values import check_label_keys
from windlass.errors import (
    AlreadyExists,
    Error,
    FailedPrecondition,
    NoSpace,
    NotFound,
    Unavailable,
    Unimplemented,
    is_full,
)
from windlass.filters.expressions import parse
from windlass.filters.fieldpaths import kept_labels, updated_map
from windlass.plugin import quick
from windlass.typing import override
from windlass_mounts.names import adaptor, check_names, shown
from windlass_mounts.places import Places
from windlass_mounts.plan import Plan, plan
from windlass_mounts.records import Records, Row, State
from windlass_mounts.transformations import transformations
from windlass_storage.directory_handler import DirectoryHandler

logger = logging.getLogger(__name__)

DEFAULTS = ActivateOptions()


class ActiveMounts(MountManager):
    """The activations of all namespaces, below one directory."""

    def __init__(
        self,
        state: Path,
        handlers: Mapping[str, MountHandler],
        allowed_roots: Sequence[Path],
        check_lease: Callable[[str, str], object],
    ) -> None:
        """Keep records and mounts below ``state``; directories and files may be made below ``allowed_roots``.

        ``check_lease`` raises NotFound for a namespace and lease that are not there.
        """
        self._check_lease = check_lease
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handlers = dict(handlers)
        self._places = Places(state / "t", self._handlers, DirectoryHandler())
        self._transformations = transformations(allowed_roots)
        self._busy: set[int] = set()
        self._guard = threading.Lock()
        self._records = Records(state / "mounts.db")

    @property
    def targets(self) -> Path:
        """The directory below which everything is mounted."""
        return self._places.targets

    def close(self) -> None:
        """Close the records; what is mounted stays."""
        self._records.close()

    @override
    @quick
    def handles(self, mounts: Sequence[Mount]) -> bool:
        return plan(mounts, self._handlers).needed

    @override
    def activate(
        self, namespace: str, name: str, mounts: Sequence[Mount], options: ActivateOptions | None = None
    ) -> Activation:
        options = options or DEFAULTS
        check_names(namespace, name)
        check_label_keys(options.labels)
        todo = plan(mounts, self._handlers, options.allowed, options.temporary)
        if not todo.needed:
            raise Unimplemented(f"mount {shown(name)} has nothing to activate; make its mounts with mount(2)")
        if options.lease:
            self._check_lease(namespace, options.lease)
        with self._reserved(namespace, name, options) as id:
            try:
                self._places.make(id)
                active, system = self._carry_out(id, todo)
                self._records.finish(id, active, system)
            except OSError as error:
                self._undo(id)
                raise _refused(error) from error
            except BaseException:
                self._undo(id)
                raise
        return Activation(name, active, system, kept_labels(options.labels))

    @override
    def deactivate(self, namespace: str, name: str) -> None:
        row = self._find(namespace, name)
        with self._held(row.id, f"mount {shown(name)}"):
            self._end(row.id)

    @override
    def info(self, namespace: str, name: str) -> Activation:
        """Describe an activation; one that is under way is not there yet, or no more."""
        row = self._find(namespace, name)
        if row.state != State.ACTIVE:
            raise NotFound(f"mount {shown(name)} is not active; deactivate it to remove what is left of it")
        return row.activation

    @override
    def update(self, namespace: str, activation: Activation, fieldpaths: Sequence[str] = ()) -> Activation:
        row = self._find(namespace, activation.name)
        with self._held(row.id, f"mount {shown(activation.name)}"):
            now = self.info(namespace, activation.name)
            labels = updated_map("labels", now.labels, activation.labels, fieldpaths or ("labels",), "a mount")
            self._records.label(row.id, labels)
        return replace(now, labels=labels)

    @override
    def list(self, namespace: str, filters: Sequence[str] = ()) -> builtins.list[Activation]:
        check_names(namespace)
        accepts = parse(filters)
        found = [row.activation for row in self._records.all(namespace) if row.state == State.ACTIVE]
        return [activation for activation in found if accepts(adaptor(activation))]

    def collectibles(self) -> Sequence[Collectible]:
        """Return what garbage collection may ask to `discard`; what a failure has left is held by nothing."""
        with self._guard:
            busy = set(self._busy)
        return [
            Collectible(row.namespace, str(row.id), row.activation.labels, row.lease, row.activation.name)
            if row.state == State.ACTIVE
            else Collectible(row.namespace, str(row.id))
            for row in self._records.all()
            if row.id not in busy
        ]

    def discard(self, namespace: str, id: str) -> None:
        """Deactivate what nothing holds any more."""
        row = self._records.by_id(int(id))
        if row is not None and row.namespace == namespace:
            with self._held(row.id, f"mount {shown(row.activation.name)}"):
                self._end(row.id)

    def clean_in_background(self, done: Callable[[], None]) -> None:
        """Clean up after an earlier daemon in a thread, and call ``done`` at its end."""

        def work() -> None:
            try:
                self.clean()
            finally:
                done()

        threading.Thread(target=work, name="clean mounts", daemon=True).start()

    def clean(self) -> None:
        """Forget what is mounted no more or only in part, and unmount what is not known; all else stays."""
        with self._guard:
            # What is begun from now on has a higher number than any of these, or is busy.
            ids = set(self._places.ids()) - self._busy
        for row in self._records.all():
            if self._is_whole(row):
                ids.discard(row.id)
            else:
                ids.add(row.id)
        for id in sorted(ids):
            try:
                with self._held(id, f"mount {id}"):
                    row_now = self._records.by_id(id)
                    if row_now is None or not self._is_whole(row_now):
                        self._end(id)
            except (Error, OSError) as error:
                logger.warning("mounts in %s stay: %s", self.targets / str(id), error)

    def _is_whole(self, row: Row) -> bool:
        return row.state == State.ACTIVE and all(map(self._places.is_mounted, row.activation.active))

    def _carry_out(self, id: int, todo: Plan) -> tuple[tuple[ActiveMount, ...], tuple[Mount, ...]]:
        active: builtins.list[ActiveMount] = []
        system: builtins.list[Mount] = []
        for index, step in enumerate(todo.steps):
            mount = step.mount
            for name in step.transformations:
                mount = self._transformations[name](mount, active)
            if index < todo.made:
                active.append(self._places.mount(id, todo.made - index, mount, active))
            else:
                system.append(mount)
        if todo.bind_last:
            system = _bind_of(active[-1])
        return tuple(active), tuple(system)

    @contextmanager
    def _reserved(self, namespace: str, name: str, options: ActivateOptions) -> Iterator[int]:
        labels = kept_labels(options.labels)
        # Under the guard, so that no other thread takes the row for one that a failure has left.
        with self._guard:
            id = self._records.add(namespace, name, options.lease, labels)
            if id is not None:
                self._busy.add(id)
        if id is None:
            self._clear_failed(namespace, name)
            with self._guard:
                id = self._records.add(namespace, name, options.lease, labels)
                if id is not None:
                    self._busy.add(id)
        if id is None:
            raise Unavailable(f"mount {shown(name)} is being activated by another call; try again")
        try:
            yield id
        finally:
            with self._guard:
                self._busy.discard(id)

    def _clear_failed(self, namespace: str, name: str) -> None:
        """Remove what an earlier attempt has left. Raises AlreadyExists when it is what was wanted."""
        row = self._records.find(namespace, name)
        if row is None:
            return
        if row.state == State.ACTIVE:
            raise AlreadyExists(f"mount {shown(name)} exists already")
        with self._held(row.id, f"mount {shown(name)}"):
            self._end(row.id)

    @contextmanager
    def _held(self, id: int, what: str) -> Iterator[None]:
        with self._guard:
            if id in self._busy:
                raise Unavailable(f"{what} is in use by another call; try again")
            self._busy.add(id)
        try:
            yield
        finally:
            with self._guard:
                self._busy.discard(id)

    def _end(self, id: int) -> None:
        self._records.suspect(id)
        try:
            self._places.clear(id)
        except OSError as error:
            raise FailedPrecondition(f"mounts in {self.targets / str(id)} cannot be removed: {error}") from error
        self._records.remove(id)

    def _undo(self, id: int) -> None:
        try:
            self._end(id)
        except Error as error:
            logger.warning("a failed activation is cleaned up later: %s", error)

    def _find(self, namespace: str, name: str) -> Row:
        check_names(namespace, name)
        row = self._records.find(namespace, name)
        if row is None:
            raise NotFound(f"mount {shown(name)} does not exist")
        return row


def _refused(error: OSError) -> Error:
    """Return NoSpace for a full disk; any other reason, a damaged image too, is the caller's to remove."""
    return NoSpace(f"{error}; make room there") if is_full(error) else FailedPrecondition(str(error))


def _bind_of(last: ActiveMount) -> builtins.list[Mount]:
    """Return what shows the last mount to the caller; a device cannot be shown so."""
    if not Path(last.mount_point).is_dir():
        return []
    mode = "ro" if "ro" in last.mount.options else "rw"
    return [Mount("bind", last.mount_point, (mode, "rbind"))]
