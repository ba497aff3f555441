"""Notices when Linux kills processes of a container because its cgroup is out of memory."""

from __future__ import annotations

import os

from windlass.errors import NotFound
from windlass_linux import calls as linux
from windlass_shim_runc import cgroups, disk, records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass_shim_runc.keeper import Handover
    from windlass_shim_runc.loop import Loop

V1_TOP, V2_TOP = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
CONTROL, EVENT_CONTROL = "memory.oom_control", "cgroup.event_control"
EVENTS = "memory.events"

IN_MODIFY, IN_NONBLOCK, IN_CLOEXEC = 2, os.O_NONBLOCK, os.O_CLOEXEC
BUFFER = 4096


class MemoryWatch:
    """Calls ``on_oom`` until it is closed, with a last look: no kill is reported after the exit that it caused."""

    __slots__ = ("_count", "_directory", "_fd", "_loop", "_on_oom", "_task")

    def __init__(self, loop: Loop, directory: str, fd: int, count: int, on_oom: Callable[[], None]) -> None:
        """Have been notified of ``count`` kills by ``fd``; -1 is cgroup version 1, which does not count."""
        self._loop = loop
        self._directory = directory
        self._on_oom = on_oom
        self._count = count
        self._fd = fd
        self._task = loop.call_on(fd, self._look)

    def to_record(self, handover: Handover) -> records.MemoryRecord:
        """Return what `take_over` makes the same watch of."""
        return records.MemoryRecord(
            directory=self._directory,
            events=handover.put(self._fd, watched=True),
            counts=self._count >= 0,
            kills=max(0, self._count),
        )

    def close(self) -> None:
        """Look once more, and stop."""
        self._look()
        self._loop.cancel(self._task)
        os.close(self._fd)

    def _look(self) -> None:
        try:
            os.read(self._fd, BUFFER)
        except BlockingIOError:
            if self._count < 0:
                return
        if self._count < 0:
            # A cgroup that is removed wakes its eventfds too.
            if disk.exists(f"{self._directory}/{CONTROL}"):
                self._on_oom()
            return
        count = kills(self._directory)
        if count > self._count:
            self._count = count
            self._on_oom()


def watch(loop: Loop, pid: int, on_oom: Callable[[], None]) -> MemoryWatch | None:
    """Watch the memory cgroup of a process; None when it has none of its own. Raises OSError."""
    directory = memory_directory(pid)
    return watch_directory(loop, directory, on_oom) if directory else None


def watch_directory(loop: Loop, directory: str, on_oom: Callable[[], None]) -> MemoryWatch:
    """Watch a cgroup, of version 1 (cgroup-v1/memory.txt, 10) or 2; raises OSError."""
    if disk.exists(f"{directory}/{EVENT_CONTROL}"):
        return MemoryWatch(loop, directory, notified_by_eventfd(directory), -1, on_oom)
    count = kills(directory)
    return MemoryWatch(loop, directory, notified_by_inotify(f"{directory}/{EVENTS}"), count, on_oom)


def take_over(
    loop: Loop, handover: Handover, record: records.MemoryRecord, on_oom: Callable[[], None]
) -> MemoryWatch | None:
    """Go on with the watch of a record; None when there was none."""
    if not record.events:
        return None
    count = record.kills if record.counts else -1
    return MemoryWatch(loop, record.directory, handover.take(record.events), count, on_oom)


def memory_directory(pid: int) -> str:
    """Return the memory cgroup of a process, empty for the root or none."""
    legacy = unified = ""
    for line in disk.read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            legacy = path
        elif not names:
            unified = path
    path = legacy or unified
    if path in ("", "/"):
        return ""
    # The mount table is read only where the cgroup file systems are in unusual places: with many containers it is long.
    for directory in (f"{V1_TOP}{legacy}",) if legacy else (f"{V2_TOP}{unified}",):
        if disk.exists(f"{directory}/{CONTROL if legacy else EVENTS}"):
            return directory
    try:
        place, controllers = cgroups.directories(pid)
    except NotFound:
        return ""
    directory = controllers.get("memory", "") or place
    return directory if any(disk.exists(f"{directory}/{name}") for name in (EVENT_CONTROL, EVENTS)) else ""


def notified_by_eventfd(directory: str) -> int:
    """Return an eventfd that a cgroup of version 1 writes to when it is out of memory."""
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        control = os.open(f"{directory}/{CONTROL}", os.O_RDONLY)
        try:
            disk.write(f"{directory}/{EVENT_CONTROL}", b"%d %d" % (fd, control), 0)
        finally:
            os.close(control)
    except OSError:
        os.close(fd)
        raise
    return fd


def notified_by_inotify(path: str) -> int:
    """Return an inotify descriptor of a file's changes."""
    libc = linux.libc()
    fd = int(libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC))
    if fd < 0 or libc.inotify_add_watch(fd, path.encode(), IN_MODIFY) < 0:
        if fd >= 0:
            os.close(fd)
        raise OSError(f"cannot watch {path}: fs.inotify.max_user_instances or max_user_watches is reached")
    return fd


def kills(directory: str) -> int:
    """Return how many processes of a cgroup of version 2 were killed so far."""
    return cgroups.table(directory, EVENTS).get("oom_kill", 0)
