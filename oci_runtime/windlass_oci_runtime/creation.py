"""Makes a container: by a process that becomes its init and waits for the start.

The caller waits until `report` can be read, in its own way, and then calls `settle`.
"""

from __future__ import annotations

import contextlib
import os
import signal

from windlass_linux.calls import CLONE_NEWUSER
from windlass_linux.cgroups import remove_within
from windlass_oci_runtime import cgroups, console, identity, namespaces, report, state, steps
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.hooks import Gate
from windlass_oci_runtime.initial import Init
from windlass_oci_runtime.namespaces import LATE
from windlass_oci_runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import NoReturn

CACHE = ".seccomp"
"""Below the root of all containers, whose names do not begin with a dot."""


class Creation:
    """A container on its way."""

    def __init__(self, root: str, id: str, bundle: str) -> None:
        """Read the bundle, and take the name. Raises AlreadyExists, InvalidArgument, FailedPrecondition."""
        self.container = state.Container(root, id)
        self._plan = Plan(id, bundle, f"{root}/{CACHE}")
        self._groups: list[str] = []
        self.pid = 0
        self.report = -1
        """Where the process says that it waits for its start, or why it cannot be made."""
        self.container.reserve()

    def spawn(self, stdio: Mapping[int, int], console_path: str = "", sibling: bool = False) -> None:
        """Begin the process. ``stdio`` maps its standard streams to our descriptors; others are /dev/null.

        ``console_path`` is the socket that gets the terminal's master. The process becomes a ``sibling``
        of ours on demand. Raises OSError, InvalidArgument; then call `undo`.
        """
        plan = self._plan
        self._groups = cgroups.make(plan.cgroups)
        cgroups.limit(plan.cgroups, plan.resources)
        with contextlib.ExitStack() as closing:
            closing.callback(plan.close)
            plan.open_namespaces()
            plan.open_sources()
            peer = closing.enter_context(console.connected(console_path)) if console_path else None
            fifo = self.container.make_fifo()
            closing.callback(os.close, fifo)
            self.report, writer = os.pipe2(os.O_CLOEXEC)
            closing.callback(os.close, writer)
            gate, mapped = Gate(plan.hooks), os.pipe2(os.O_CLOEXEC)
            closing.callback(gate.close)
            closing.callback(close, mapped)

            def init() -> NoReturn:
                take(stdio)
                os.close(mapped[1])
                Init(plan, writer, fifo, peer, gate, mapped[0]).run()

            self.pid = staged(plan, sibling, writer, init) if plan.is_staged else clone(plan.new & ~LATE, sibling)
            if not self.pid:
                init()
            if plan.new & CLONE_NEWUSER and plan.maps:
                plan.maps.write(self.pid)
            os.write(mapped[1], b"1")
            gate.serve(plan.state(state.CREATING, self.pid), writer)

    def settle(self) -> int:
        """Read the report, keep the container's state, and return init's pid. Raises `report.Failure`."""
        message = os.read(self.report, report.MOST)
        os.close(self.report)
        self.report = -1
        if not message:
            raise report.Failure("init", "it has ended without a word")
        report.heard(message)
        plan = self._plan
        self.container.write(
            {
                **plan.state(state.CREATED, self.pid),
                "started": state.started_at(self.pid),
                "created": state.now(),
                "rootfs": plan.rootfs,
                "cgroups": plan.cgroups,
                "hooks": plan.hooks,
                "seccomp": plan.spec["linux"].get("seccomp"),
                "resources": plan.resources,
            }
        )
        return self.pid

    def undo(self) -> None:
        """Remove what there is of a container that could not be made."""
        if self.report >= 0:
            os.close(self.report)
            self.report = -1
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        remove_within(self._groups)
        self.container.remove()


def staged(plan: Plan, sibling: bool, writer: int, init: Callable[[], NoReturn]) -> int:
    """Make init by a process that joins namespaces first, and return init's pid. Raises `report.Failure`, OSError."""
    pid_reader, pid_writer = os.pipe2(os.O_CLOEXEC)
    try:
        stage = clone(0, sibling)
        if not stage:
            steps.run(_stage(plan, pid_writer, init), writer)
        os.close(pid_writer)
        pid_writer = -1
        found = os.read(pid_reader, 16)
        if not sibling:
            os.waitpid(stage, 0)
        if not found:
            raise report.Failure("namespaces", "they could not be joined")
        return int(found)
    finally:
        close((pid_reader, pid_writer))


def _stage(plan: Plan, pid_writer: int, init: Callable[[], NoReturn]) -> steps.Steps:
    def make() -> NoReturn:
        pid = clone(plan.new & ~LATE, sibling=True)
        if not pid:
            plan.joined = []
            init()
        os.write(pid_writer, b"%d" % pid)
        os._exit(0)

    yield "cgroup", lambda: cgroups.join(plan.cgroups)
    yield "process", lambda: identity.set_oom_score(plan.process)
    yield "namespaces", lambda: namespaces.join(plan.joined)
    yield "namespaces", make


def close(descriptors: Iterable[int]) -> None:
    """Close those that are open."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)


def take(stdio: Mapping[int, int]) -> None:
    """Make the standard streams those that are given; others are /dev/null."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Copies first: a descriptor of ours may have the number of one that is to be replaced.
    copies = {number: os.dup(stdio.get(number, null)) for number in (0, 1, 2)}
    for number, copy in copies.items():
        os.dup2(copy, number)
        os.close(copy)
    os.close(null)
