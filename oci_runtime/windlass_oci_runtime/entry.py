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
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.creation import CACHE, take
from windlass_oci_runtime.identity import Process
from windlass_oci_runtime.seccomp import Filter
from windlass_oci_runtime.shapes import PROCESS, checked
from windlass_oci_runtime.specification import check_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from windlass_oci_runtime.steps import Steps

ALL = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)
PID_NAMESPACE = "/proc/self/ns/pid"


class Entry:
    """A process on its way into a container."""

    def __init__(
        self, container: state.Container, process: Mapping[str, Any], ignores_pause: bool = False, group: str = ""
    ) -> None:
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
        self.init: int = self._state["pid"]
        self.pid = 0
        self.report = -1

    def spawn(self, stdio: Mapping[int, int], console_path: str = "", sibling: bool = False) -> None:
        """Begin the process, as `Creation.spawn` does."""
        with contextlib.ExitStack() as closing:
            target = os.pidfd_open(self.init)
            closing.callback(os.close, target)
            if not state.is_alive(self.init, self._state["started"]):
                raise FailedPrecondition(f"container {self._state['id']} has stopped meanwhile")
            peer = closing.enter_context(console.connected(console_path)) if console_path else None
            self.report, writer = os.pipe2(os.O_CLOEXEC)
            closing.callback(os.close, writer)
            # Only children begin in the namespace that is set; afterwards ours are here again.
            own = os.open(PID_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            closing.callback(os.close, own)
            # The process is seen inside as soon as it exists, so it must be closed to others before.
            linux.prctl(linux.PR_SET_DUMPABLE, 0)
            linux.setns(target, linux.CLONE_NEWPID)
            try:
                self.pid = clone(0, sibling)
            finally:
                if self.pid or self.report < 0:
                    linux.setns(own, linux.CLONE_NEWPID)
            if not self.pid:
                take(stdio)
                _Joining(self, target, writer, peer).run()

    def settle(self) -> int:
        """Return the pid once the program runs. Raises `report.Failure`."""
        message = os.read(self.report, report.MOST)
        os.close(self.report)
        self.report = -1
        report.heard(message)
        return self.pid

    def undo(self) -> None:
        """Forget a process that was not made."""
        if self.report >= 0:
            os.close(self.report)
            self.report = -1


class _Joining:
    def __init__(self, entry: Entry, target: int, writer: int, peer: socket.socket | None) -> None:
        self._entry = entry
        self._target = target
        self._report = writer
        self._peer = peer
        self._last = 0
        self._program = ""

    def run(self) -> NoReturn:
        steps.run(self._steps(), self._report)

    def _steps(self) -> Steps:
        entry, process = self._entry, self._entry.process
        affinity = process.spec.get("execCPUAffinity") or {}
        yield "session", self._begin
        yield "cgroup", lambda: cgroups.join(entry.groups)
        yield "process", lambda: identity.set_oom_score(process)
        yield "process", lambda: attributes.set_affinity(affinity.get("initial", ""))
        yield "namespaces", self._join
        yield "terminal", self._terminal
        yield "labels", lambda: attributes.set_labels(process.spec)
        yield from entry.attributes
        yield "process", lambda: attributes.set_affinity(affinity.get("final", ""))
        yield "process", lambda: identity.take_on(process, entry.filter, self._last)
        yield "", self._find
        yield "", lambda: execute.execute(self._program, process.args, process.env)

    def _begin(self) -> None:
        os.setsid()
        identity.reset_signals()
        self._last = capability.last()

    def _join(self) -> None:
        flags = ALL
        # Linux refuses the user namespace that a process is in already.
        is_other_user = namespaces.differs(self._entry.init, "user")
        if is_other_user:
            flags |= linux.CLONE_NEWUSER
        if namespaces.differs(self._entry.init, "time"):
            flags |= linux.CLONE_NEWTIME
        linux.setns(self._target, flags)
        if is_other_user:
            userns.become_root()

    def _terminal(self) -> None:
        if self._peer is not None:
            console.attach(console.make(self._peer, self._entry.process.spec.get("consoleSize")))
            self._peer.close()

    def _find(self) -> None:
        self._program = execute.find(self._entry.process.args[0], self._entry.process.env)
        identity.seal()
