"""Looks for bundles, control groups and processes that belong to no container or task, for `windlass fsck`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from windlass.contracts.checks import Checked, Problem
from windlass.contracts.metadata import Metadata
from windlass.errors import Error, NotFound
from windlass.typing import override
from windlass_linux import cgroups, mounting
from windlass_runtime_v2.bundle import Bundle
from windlass_runtime_v2.bundles import Bundles, sweep
from windlass_runtime_v2.strays import strays
from windlass_runtime_v2.task import is_alive

CONNECT_TIMEOUT = 1.0
MOST_NAMED = 10


class BundleCheck(Checked):
    """Looks at what has no shim that lives; the rest is the daemon's business when it starts."""

    def __init__(self, bundles: Bundles, metadata: Metadata, root: Path) -> None:
        self._bundles = bundles
        self._metadata = metadata
        self._root = root

    @override
    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        return [*self._strays(repair), *self._groups(repair), *self._processes()]

    def _groups(self, repair: bool) -> Iterator[Problem]:
        """Yield control groups that containers without a task have left."""
        idle: list[tuple[str, str, list[str]]] = []
        in_use: set[str] = set()
        for namespace in self._metadata.namespaces().list():
            for container in self._metadata.containers(namespace.name).list():
                groups = cgroups.groups_of(container.spec.value, container.id) if container.spec else []
                if self._bundles.bundle(namespace.name, container.id).path.exists():
                    in_use.update(groups)
                else:
                    idle.append((namespace.name, container.id, [each for each in groups if Path(each).is_dir()]))
        for namespace_name, id, groups in idle:
            # Some clients put several containers into one.
            if groups and not in_use.intersection(groups):
                yield _group_problem(namespace_name, id, groups, repair)

    def _processes(self) -> Iterator[Problem]:
        known = [pid for bundle in self._bundles.walk() if (pid := bundle.init_pid())]
        for stray in strays(self._root, known):
            what = f"process {stray.pid} ({stray.name})"
            state = f"runs in a root filesystem of this daemon and belongs to no bundle; its group is {stray.group}"
            yield Problem(what, state, f"end it: kill -9 {stray.pid}")

    def _strays(self, repair: bool) -> Iterator[Problem]:
        for bundle in list(self._bundles.walk()):
            if self._is_known(bundle):
                continue
            mounts = len(mounting.mounts_below(bundle.path))
            held = f" and holds {mounts} mounts" if mounts else ""
            what, state = f"bundle {bundle.path}", f"belongs to no container{held}"
            if _has_shim(bundle):
                yield Problem(what, f"{state}, and its shim runs", "start windlassd, which ends it")
            elif is_alive(pid := bundle.init_pid()):
                yield Problem(what, f"{state}, and its process {pid} runs", "start windlassd, which ends it")
            elif not repair:
                yield Problem(what, state, "run with --repair, or start windlassd, to have it removed")
            else:
                sweep(self._bundles.hide(bundle))
                yield Problem(what, state, "it was removed", repaired=True)

    def _is_known(self, bundle: Bundle) -> bool:
        try:
            self._metadata.containers(bundle.namespace).get(bundle.id)
        except NotFound:
            return False
        return True


def _group_problem(namespace: str, id: str, groups: list[str], repair: bool) -> Problem:
    what = f"control group {groups[0]} of container {namespace}/{id}"
    if pids := sorted({pid for group in groups for pid in cgroups.processes_in(group)}):
        words = " ".join(map(str, pids[:MOST_NAMED]))
        state = f"has processes, {words}, although the container has no task"
        return Problem(what, state, f"end them: kill -9 {words}")
    state = "is there although the container has no task"
    if not repair:
        return Problem(what, state, "run with --repair, or start a task of it, to have it removed")
    if left := cgroups.remove(groups):
        return Problem(what, state, f"it cannot be removed: {left[0]} is in use")
    return Problem(what, state, "it was removed", repaired=True)


def _has_shim(bundle: Bundle) -> bool:
    """Return whether a process listens where the bundle's shim would."""
    try:
        address = bundle.read_bootstrap().address.removeprefix("unix://")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(CONNECT_TIMEOUT)
            peer.connect(address)
    except (Error, OSError, ValueError):
        return False
    return True
