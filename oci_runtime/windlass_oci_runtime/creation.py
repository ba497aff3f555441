"""Makes a container: by a process that becomes its init and waits for the start.

The caller waits until `report` can be read, in its own way, and then calls `settle`.
"""

from __future__ import annotations

import contextlib
import os
import signal

from windlass_linux.calls import CLONE_NEWTIME, CLONE_NEWUSER
from windlass_linux.cgroups import remove_within
from windlass_oci_runtime import cgroups, console, enrolling, identity, namespaces, report, scope, state
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.hooks import Gate
from windlass_oci_runtime.initial import Init
from windlass_oci_runtime.listener import Handover
from windlass_oci_runtime.namespaces import LATE
from windlass_oci_runtime.plan import Plan
from windlass_oci_runtime.seclusion import closed_to_others, keep_only
from windlass_oci_runtime.stage import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from windlass_oci_runtime.identity import Process
    from windlass_oci_runtime.steps import Steps

CACHE = ".seccomp"
"""Below the root of all containers, whose names do not begin with a dot."""
LIMIT = "linux.resources.memory.limit"


class Creation:
    """A container on its way."""

    def __init__(self, root: str, id: str, bundle: str, has_keyring: bool = True, by_systemd: bool = False) -> None:
        """Read the bundle, and take the name; without a keyring of its own the container has that of this process.

        With its groups made ``by_systemd``, `hold` and `enroll` come before `spawn`.

        Raises AlreadyExists, InvalidArgument, FailedPrecondition.
        """
        self.container = state.Container(root, id)
        self._plan = Plan(id, bundle, f"{root}/{CACHE}", by_systemd)
        self._plan.has_keyring = has_keyring
        self._groups: list[str] = []
        self._holder = 0
        self.pid = 0
        self._helpers: list[int] = []
        self.report = -1
        """Where the process says that it waits for its start, or why it cannot be made."""
        self.container.reserve()

    @property
    def process(self) -> Process:
        """The process that init will be."""
        return self._plan.process

    def preserve(self, count: int) -> None:
        """Leave so many of our descriptors to the process, from 3 on."""
        self._plan.process.preserved = count

    @property
    def in_scope(self) -> bool:
        """Whether systemd makes the control groups."""
        return self._plan.scope is not None

    def hold(self) -> None:
        """Make the process with which systemd makes the scope; it stays until init is in there. Raises OSError."""
        self._holder = scope.hold()

    def enroll(self) -> None:
        """Have systemd make the scope, which may take seconds; another process may call this.

        Raises AlreadyExists, InvalidArgument, FailedPrecondition, DeadlineExceeded, with the unit.
        """
        enrolling.enroll(self._plan, self._holder)

    def spawn(self, stdio: Mapping[int, int], console_to: str | socket.socket = "", sibling: bool = False) -> None:
        """Begin the process. ``stdio`` maps its standard streams to our descriptors; others are /dev/null.

        ``console_to`` is the socket, or its path, that gets the terminal's master. The process becomes a ``sibling``
        of ours on demand. Raises OSError, InvalidArgument; then call `undo`.
        """
        plan = self._plan
        self._make_groups()
        with contextlib.ExitStack() as closing:
            closing.callback(plan.close)
            plan.open_namespaces()
            plan.open_sources()
            peer = closing.enter_context(console.connected(console_to)) if console_to else None
            fifo = self.container.make_fifo()
            closing.callback(os.close, fifo)
            self.report, writer = os.pipe2(os.O_CLOEXEC)
            closing.callback(os.close, writer)
            gate, handover, mapped = Gate(plan.hooks), Handover(plan.filter), os.pipe2(os.O_CLOEXEC)
            closing.callback(gate.close)
            closing.callback(handover.close)
            closing.callback(close, mapped)
            # Root of a user namespace may not begin a process in a control group of the host's.
            is_begun = not plan.joins("user")
            doors = cgroups.doors(plan.cgroups, is_begun) if plan.is_staged else []
            closing.callback(close, doors)

            init = Init(plan, writer, fifo, peer, gate, handover, mapped[0], doors)
            group = cgroups.entrance(plan.cgroups, plan.is_staged) if is_begun else -1
            closing.callback(close, (group,))
            if plan.joined:
                # What is joined must not see into a process of the host's.
                closing.enter_context(closed_to_others())
            self.pid = _begun(plan, Stage(writer, sibling, group), stdio, init)
            if not self.pid:
                return  # `settle` reads why
            if plan.new & CLONE_NEWUSER and plan.maps:
                plan.maps.write(self.pid)
            os.write(mapped[1], b"1")
            # While init works: one that nobody knows of would wait for its start for ever.
            self._keep()
            now = plan.state(state.CREATING, self.pid)
            self._helpers = [handover.serve(self.pid, now, writer), gate.serve(now, writer)]

    def _make_groups(self) -> None:
        plan = self._plan
        if plan.scope:
            # Whatever systemd said: init begins in its scope or not at all.
            plan.scope.check_holds(self._holder)
        self._groups = cgroups.make(plan.cgroups)
        if not plan.scope:
            cgroups.check_empty(set(plan.cgroups) - set(self._groups))
        cgroups.check_thaw(plan.cgroups)
        cgroups.limit(plan.cgroups, plan.resources)

    def settle(self) -> int:
        """Read the report, and return init's pid. Raises `report.Failure`."""
        message = os.read(self.report, report.MOST)
        self._release()
        os.close(self.report)
        self.report = -1
        if not message:
            # An error alone gets here, so the hot path does not look.
            killed = cgroups.is_out_of_memory(self._plan.cgroups)
            why = (
                f"container init was OOM-killed (memory limit too low?): {LIMIT}"
                if killed
                else "it has ended without a word"
            )
            raise report.Failure("init", why)
        report.heard(message)
        reap(self._helpers)
        return self.pid

    def _release(self) -> None:
        if self._holder:
            scope.release(self._holder)
            self._holder = 0

    def _keep(self) -> None:
        plan = self._plan
        self.container.write(
            {
                **plan.state(state.CREATED, self.pid),
                "started": state.started_at(self.pid),
                "created": state.now(),
                "rootfs": plan.rootfs,
                "cgroups": plan.cgroups,
                "unit": plan.scope.name if plan.scope else "",
                "hooks": plan.hooks,
                "seccomp": plan.spec["linux"].get("seccomp"),
                "resources": plan.resources,
                "has_keyring": plan.has_keyring,
            }
        )

    def undo(self) -> None:
        """Remove what there is of a container that could not be made."""
        if self.report >= 0:
            os.close(self.report)
            self.report = -1
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        reap(self._helpers, os.WNOHANG)
        self._release()  # systemd removes a scope that is empty
        remove_within(self._groups)
        self.container.remove()


def _begun(plan: Plan, stage: Stage, stdio: Mapping[int, int], init: Init) -> int:
    """Make the process that becomes init, by way of the stage if it has to; return its pid, 0 for none."""
    if plan.is_staged:
        return stage.run(_staged(plan, stage, stdio, init))
    pid = clone(plan.new & ~LATE, stage.sibling, stage.group)
    if not pid:
        take(stdio)
        init.run()
    return pid


def _staged(plan: Plan, stage: Stage, stdio: Mapping[int, int], init: Init) -> Steps:
    # Linux lets into a time namespace only a process in whose memory is its own.
    late = [each for each in plan.joined if each[1] == CLONE_NEWTIME]

    def seclude() -> None:
        take(stdio)
        keep_only({stage.group, *init.needed()}, plan.process.preserved)

    def joined() -> NoReturn:
        plan.joined = late
        init.run()

    # Before there is a process that what is joined sees.
    yield "session", seclude
    yield "process", lambda: identity.set_oom_score(plan.process)
    yield "namespaces", lambda: namespaces.join([each for each in plan.joined if each not in late])
    yield "namespaces", lambda: stage.leave(joined, plan.new & ~LATE)


def reap(helpers: Iterable[int], options: int = 0) -> None:
    """Take what is left of processes that have done their work; another reaper may have done so."""
    for pid in filter(None, helpers):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, options)


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
