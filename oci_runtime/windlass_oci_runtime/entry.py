"""Runs a further process in a container (exec)."""

from __future__ import annotations

import contextlib
import os

from windlass.errors import FailedPrecondition, NotFound
from windlass_linux import calls as linux
from windlass_oci_runtime import (
    attributes,
    capability,
    cgroups,
    console,
    execute,
    identity,
    namespaces,
    report,
    state,
    steps,
    userns,
)
from windlass_oci_runtime.creation import CACHE, close, reap, take
from windlass_oci_runtime.ending import oci_state
from windlass_oci_runtime.identity import Process
from windlass_oci_runtime.listener import Handover
from windlass_oci_runtime.seccomp import Filter
from windlass_oci_runtime.seclusion import closed_to_others, keep_only
from windlass_oci_runtime.shapes import PROCESS, checked
from windlass_oci_runtime.specification import check_process
from windlass_oci_runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from windlass_oci_runtime.json_types import Json
    from windlass_oci_runtime.steps import Steps

ALL = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)
LATE = {"user": linux.CLONE_NEWUSER, "time": linux.CLONE_NEWTIME}
"""What the process joins itself: root of a user namespace may not begin a process in a control group of the host's, and
Linux lets into a time namespace only a process in whose memory is its own."""


class Entry:
    """A process on its way into a container."""

    def __init__(self, container: state.Container, process: Json, ignores_pause: bool = False, group: str = "") -> None:
        """Read a process of the specification; ``group`` is a control group below the container's.

        Raises NotFound, FailedPrecondition, InvalidArgument.
        """
        self._state = container.read()
        status = container.status(self._state)
        if status == state.STOPPED:
            raise FailedPrecondition(f"container {container.id} is not running; start it first")
        if status == state.PAUSED and not ignores_pause:
            raise FailedPrecondition(f"container {container.id} is paused; resume it first")
        self.groups: list[str] = [f"{place}/{group}".rstrip("/") for place in self._state["cgroups"]]
        for place in self.groups if group else ():
            if not os.path.isdir(place) or "/../" in f"{place}/":
                raise NotFound(f"control group {group[:80]!r} does not exist in container {container.id}")
        process = checked(process, PROCESS, "process")
        check_process({**process}, "process")
        self.process = Process(process)
        profile = self._state.get("seccomp")
        self.attributes = list(attributes.steps(process, {}))
        attributes.check_labels(process)
        self.filter = Filter(profile, f"{os.path.dirname(container.directory)}/{CACHE}") if profile else None
        self.keyring: str = container.id if self._state.get("has_keyring") else ""
        self.init: int = self._state["pid"]
        self.pid = 0
        self._helpers: list[int] = []
        self.report = -1

    def preserve(self, count: int) -> None:
        """Leave so many of our descriptors to the process, from 3 on."""
        self.process.preserved = count

    def spawn(self, stdio: Mapping[int, int], console_to: str | socket.socket = "", sibling: bool = False) -> None:
        """Begin the process, as `Creation.spawn` does."""
        with contextlib.ExitStack() as closing:
            target = os.pidfd_open(self.init)
            closing.callback(os.close, target)
            if not state.is_alive(self.init, self._state["started"]):
                raise FailedPrecondition(f"container {self._state['id']} has stopped meanwhile")
            peer = closing.enter_context(console.connected(console_to)) if console_to else None
            self.report, writer = os.pipe2(os.O_CLOEXEC)
            closing.callback(os.close, writer)
            group = cgroups.entrance(self.groups, is_seen=True)
            closing.callback(close, (group,))
            handover = Handover(self.filter)
            closing.callback(handover.close)
            doors = cgroups.doors(self.groups)
            closing.callback(close, doors)
            made = Stage(writer, sibling, group)
            joining = _Joining(self, stdio, target, writer, peer, handover, doors)
            # The process is seen inside as soon as it exists, so it must be closed to others before.
            with closed_to_others():
                self.pid = made.run(joining.stage(made))
            if self.pid:
                self._helpers = [handover.serve(self.pid, oci_state(self._state, state.RUNNING), writer)]

    def settle(self) -> int:
        """Return the pid once the program runs. Raises `report.Failure`."""
        message = os.read(self.report, report.MOST)
        os.close(self.report)
        self.report = -1
        report.heard(message)
        if not self.pid:
            raise report.Failure("namespaces", "the process that joins them has ended")
        reap(self._helpers)
        return self.pid

    def undo(self) -> None:
        """Forget a process that was not made."""
        if self.report >= 0:
            os.close(self.report)
            self.report = -1


class _Joining:
    def __init__(
        self,
        entry: Entry,
        stdio: Mapping[int, int],
        target: int,
        writer: int,
        peer: socket.socket | None,
        handover: Handover,
        doors: Sequence[int],
    ) -> None:
        self._doors = doors
        self._entry = entry
        self._stdio = stdio
        self._target = target
        self._report = writer
        self._peer = peer
        self._handover = handover
        self._last = 0
        self._late = 0
        self._program = ""

    def stage(self, stage: Stage) -> Steps:
        """Join everything, and leave a process in it."""
        process = self._entry.process
        affinity = process.spec.get("execCPUAffinity") or {}
        yield "session", lambda: self._begin(stage.group)
        yield "process", lambda: identity.set_oom_score(process)
        yield "process", lambda: attributes.set_affinity(affinity.get("initial", ""))
        yield "namespaces", lambda: linux.setns(self._target, ALL)
        yield "namespaces", lambda: stage.leave(self.run, 0)

    def run(self) -> NoReturn:
        """Become the process."""
        steps.run(self._steps(), self._report)

    def _steps(self) -> Steps:
        entry, process = self._entry, self._entry.process
        affinity = process.spec.get("execCPUAffinity") or {}
        yield "session", self._begin_session
        yield "cgroup", lambda: cgroups.enter(self._doors)
        yield "namespaces", self._join_late
        if entry.keyring:
            yield "session keyring", lambda: attributes.join_keyring(entry.keyring)
        yield "terminal", self._terminal
        yield "labels", lambda: attributes.set_labels(process.spec)
        yield from entry.attributes
        yield "process", lambda: attributes.set_affinity(affinity.get("final", ""))
        yield "process", lambda: identity.take_on(process, entry.filter, self._last, self._handover)
        yield "", self._find
        yield "seccomp", lambda: identity.restrict(process, entry.filter, self._handover)
        yield "", lambda: identity.seal(process.preserved)
        yield "", lambda: execute.execute(self._program, process.args, process.env)

    def _begin(self, group: int) -> None:
        take(self._stdio)
        peer = -1 if self._peer is None else self._peer.fileno()
        needed = {group, self._target, self._report, peer, *self._doors, *self._handover.descriptors}
        keep_only(needed, self._entry.process.preserved)
        linux.set_name("windlass-exec")
        self._last = capability.last()
        for kind, flag in LATE.items():
            # Linux refuses the user namespace that a process is in already.
            if namespaces.differs(self._entry.init, kind):
                self._late |= flag

    def _begin_session(self) -> None:
        os.setsid()
        identity.reset_signals()

    def _join_late(self) -> None:
        if self._late:
            linux.setns(self._target, self._late)
        if self._late & linux.CLONE_NEWUSER:
            userns.become_root()
        os.close(self._target)

    def _terminal(self) -> None:
        if self._peer is not None:
            console.attach(console.make(self._peer, self._entry.process.spec.get("consoleSize")))
            self._peer.close()

    def _find(self) -> None:
        self._program = execute.find(self._entry.process.args[0], self._entry.process.env)
