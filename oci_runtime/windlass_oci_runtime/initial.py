"""The first process of a container, from its clone to its program: each step has a name, for the error."""

from __future__ import annotations

import os

from windlass_linux import calls as linux
from windlass_oci_runtime import (
    attributes,
    capability,
    cgroup_mount,
    cgroups,
    console,
    devices,
    execute,
    hooks,
    identity,
    namespaces,
    report,
    rootfs,
    state,
    steps,
    sysctl,
    userns,
)
from windlass_oci_runtime.seclusion import keep_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import NoReturn

    from windlass_oci_runtime.hooks import Gate
    from windlass_oci_runtime.listener import Handover
    from windlass_oci_runtime.mounts import Mount
    from windlass_oci_runtime.plan import Plan
    from windlass_oci_runtime.steps import Steps


class Init:
    """One life; what a step leaves for a later one is here."""

    __slots__ = (
        "_doors",
        "_fifo",
        "_gate",
        "_handover",
        "_last",
        "_mapped",
        "_null",
        "_peer",
        "_plan",
        "_program",
        "_report",
        "_root",
        "_slave",
    )

    def __init__(
        self,
        plan: Plan,
        report: int,
        fifo: int,
        peer: socket.socket | None,
        gate: Gate,
        handover: Handover,
        mapped: int,
        doors: Sequence[int],
    ) -> None:
        """``mapped`` is a pipe that says when this process's user namespace has its maps; ``doors`` as of `cgroups`."""
        self._plan = plan
        self._mapped = mapped
        self._doors = doors
        self._report = report
        self._fifo = fifo
        self._peer = peer
        self._gate = gate
        self._handover = handover
        self._slave = -1
        self._program = ""

    def run(self) -> NoReturn:
        """Do every step; does not return."""
        steps.run(self._steps(), self._report)

    def _steps(self) -> Steps:
        plan = self._plan
        yield "session", self._begin
        if plan.is_staged:
            yield "cgroup", lambda: cgroups.enter(self._doors)
        else:
            yield "cgroup", lambda: cgroups.join(plan.cgroups)
            yield "process", lambda: identity.set_oom_score(plan.process)
        yield "namespaces", self._namespaces
        if plan.has_keyring:
            yield "session keyring", lambda: attributes.join_keyring(plan.id)
        yield from plan.attributes
        yield "root file system", self._mount
        yield "hooks", self._gate.wait
        yield "", lambda: self._run_hooks("createContainer", state.CREATING)
        # While the host's /dev/null is in reach, from which masks are made.
        yield "masked paths", self._mask
        yield "sysctl", lambda: sysctl.apply(plan.sysctls)
        yield "enter root file system", lambda: rootfs.enter(self._root)
        yield "terminal", self._terminal
        yield "root file system", self._finish
        yield "labels", lambda: attributes.set_labels(plan.process.spec)
        yield "process", lambda: identity.take_on(plan.process, plan.filter, self._last, self._handover)
        yield "", self._find
        yield "seccomp", lambda: identity.restrict(plan.process, plan.filter, self._handover)
        yield "start", self._wait
        yield "", lambda: self._run_hooks("startContainer", state.CREATED)
        yield "", lambda: identity.seal(plan.process.preserved)
        yield "", self._execute

    def _execute(self) -> None:
        process = self._plan.process
        try:
            execute.execute(self._program, process.args, process.env)
        except execute.NotExecutable as error:
            # Nobody hears a report of a container that was started, but its output is kept.
            os.write(2, f"{error}\n".encode(errors="replace"))
            raise

    def _begin(self) -> None:
        keep_only(self.needed(), self._plan.process.preserved)
        linux.set_name("windlass-init")
        os.setsid()
        identity.reset_signals()
        self._last = capability.last()
        self._null = rootfs.null_device()

    def needed(self) -> set[int]:
        """Return our descriptors that it uses."""
        peer = -1 if self._peer is None else self._peer.fileno()
        plan = self._plan
        trees = (mount.tree for mount in plan.mounts)
        joined = (descriptor for descriptor, _ in plan.joined)
        pipes = (self._report, self._fifo, self._mapped, *self._gate.descriptors, *self._handover.descriptors)
        return {peer, *pipes, *trees, *joined, *self._doors}

    def _namespaces(self) -> None:
        plan = self._plan
        if not os.read(self._mapped, 1):
            os._exit(1)
        namespaces.join(plan.joined)
        if plan.new & linux.CLONE_NEWUSER:
            userns.become_root()
        if plan.new & namespaces.LATE:
            linux.unshare(plan.new & namespaces.LATE)
        if plan.time_offsets:
            namespaces.set_time(plan.time_offsets)
        if hostname := plan.spec.get("hostname"):
            sysctl.set_hostname(hostname)
        if domain := plan.spec.get("domainname"):
            sysctl.set_domainname(domain)

    def _mount(self) -> None:
        plan = self._plan
        self._root = rootfs.begin(plan.rootfs, plan.propagation)
        for mount in plan.mounts:
            self._mount_one(mount)
        devices.make_all(self._root, plan.devices, binds=plan.maps is not None)
        self._make_working_directory()

    def _make_working_directory(self) -> None:
        """Make the working directory, which many images name without having it; what cannot be made, chdir(2) tells."""
        try:
            os.close(self._root.directory(self._plan.process.cwd))
        except OSError:
            pass

    def _mount_one(self, mount: Mount) -> None:
        try:
            if mount.type == cgroup_mount.TYPE:
                cgroup_mount.attach(self._root, mount, self._plan.cgroups)
            else:
                rootfs.mount_one(self._root, mount)
        except OSError as error:
            # In runc's words, which clients look for.
            source, place = mount.source[:200], mount.destination[:200]
            what = f"error mounting {mount.type or 'bind'} {source} to rootfs at {place}: {error.strerror}"
            raise OSError(error.errno, what) from error

    def _terminal(self) -> None:
        if self._peer is None:
            return
        self._slave = console.make(self._peer, self._plan.process.spec.get("consoleSize"))
        console.bind(self._root, self._slave)
        console.attach(self._slave)
        self._peer.close()

    def _finish(self) -> None:
        rootfs.finish(self._root, self._plan.propagation, self._plan.is_readonly)
        # Nothing but pipes and streams is open while it waits for its start.
        os.close(self._root.descriptor)

    def _mask(self) -> None:
        plan = self._plan
        path = field = ""
        try:
            field = "linux.readonlyPaths"
            for path in plan.readonly_paths:
                rootfs.make_readonly(self._root, path)
            field = "linux.maskedPaths"
            for path in plan.masked_paths:
                rootfs.mask(self._root, path, self._null)
        except OSError as error:
            raise OSError(error.errno, f"{field}: {path[:200]}: {error.strerror}") from error
        os.close(self._null)

    def _find(self) -> None:
        process = self._plan.process
        self._program = execute.find(process.args[0], process.env)

    def _wait(self) -> None:
        os.write(self._report, report.READY)
        os.read(self._fifo, 1)

    def _run_hooks(self, point: str, status: str) -> None:
        if found := self._plan.hooks.get(point):
            hooks.run_all(point, found, self._plan.state(status, os.getpid()), self._plan.process.env)
