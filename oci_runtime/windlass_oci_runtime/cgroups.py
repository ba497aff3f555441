"""A container's control groups: one directory in each hierarchy of version 1, or one of version 2."""

from __future__ import annotations

import errno
import os
import signal
import time

from windlass.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from windlass_linux import calls
from windlass_linux import cgroups as linux
from windlass_oci_runtime import cgroup_v1, cgroup_v2, device_filter, limit_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from windlass_oci_runtime.cgroup_journal import Journal
    from windlass_oci_runtime.json_types import Json

FREEZING = 10.0
"""Seconds that a group has until all of it stands still."""
PAUSE = 0.002
KILL_ROUNDS = 100
MOST = 64 << 10
FULL = "a group above it has as many groups below as it may have (cgroup.max.descendants, cgroup.max.depth)"


def places(spec: Json, id: str) -> list[str]:
    """Return the directories of a container's groups, which need not be there. Raises InvalidArgument for a scope."""
    path = spec.get("cgroupsPath", "")
    if path.count(":") == 2 and not path.startswith("/"):
        raise InvalidArgument(
            f"linux.cgroupsPath {path[:80]!r} is a scope of systemd; "
            "use --systemd-cgroup, the shim's option SystemdCgroup, or a path"
        )
    return linux.groups_at(path, id)


def is_unified(places: Sequence[str]) -> bool:
    """Return whether this is the one group of a host that has version 2 alone."""
    return len(places) == 1 and linux.is_unified()


def make(places: Sequence[str]) -> list[str]:
    """Make the directories, and return those that are new. Raises OSError with the directory; then none is left."""
    unified = is_unified(places)
    made: list[str] = []
    for place in places:
        try:
            _make(place, made, unified)
        except OSError as error:
            linux.remove(made)
            why = FULL if error.errno == errno.EAGAIN else str(error.strerror)
            raise OSError(error.errno, f"cannot make a control group for linux.cgroupsPath: {why}", place) from error
    return made


def _make(place: str, made: list[str], unified: bool) -> None:
    try:
        try:
            os.mkdir(place, 0o755)
        except FileNotFoundError:
            os.makedirs(place, 0o755)
        made.append(place)
    except FileExistsError:
        pass
    if unified:
        cgroup_v2.enable(linux.hierarchies()[0][0], place)
    elif "cpuset" in _controllers(place):
        cgroup_v1.inherit_cpuset(place)


def entrance(places: Sequence[str], is_seen: bool = False) -> int:
    """Open the group of version 2, in which clone3(2) can begin a process; -1 without one. Raises OSError.

    A process that others see from its first moment has it open then, so it ``is_seen`` as a mount of that group alone,
    which nobody can write to or leave upwards.
    """
    place = next((place for place in places if _is_version_2(place)), "")
    if not place:
        return -1
    if not is_seen:
        return os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    group = calls.open_tree(calls.AT_FDCWD, place, calls.OPEN_TREE_CLONE | calls.OPEN_TREE_CLOEXEC)
    try:
        calls.mount_setattr(group, "", calls.AT_EMPTY_PATH, calls.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(group)
        raise
    return group


def join(places: Sequence[str]) -> None:
    """Move this process, which has one thread and was begun in the group of `entrance`, into the other groups.

    By its thread: to move a process as such, Linux first lets all others be still, which takes it 10 ms.
    """
    for place in places:
        try:
            write(f"{place}/tasks", "0")
        except FileNotFoundError:
            if not os.path.isdir(place):
                raise


def doors(places: Sequence[str], is_begun: bool = True) -> list[int]:
    """Open what `enter` needs where the host's files are out of reach. Raises OSError.

    That of version 2 is not needed where the process ``is_begun`` in its group (`entrance`).
    """
    found: list[int] = []
    try:
        for place in places:
            if not _is_version_2(place):
                found.append(os.open(f"{place}/tasks", os.O_WRONLY | os.O_CLOEXEC))
            elif not is_begun:
                found.append(os.open(f"{place}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        for descriptor in found:
            os.close(descriptor)
        raise
    return found


def enter(doors: Sequence[int]) -> None:
    """Do what `join` does, and close the ``doors``."""
    for descriptor in doors:
        os.write(descriptor, b"0")
        os.close(descriptor)


def _is_version_2(place: str) -> bool:
    return not os.path.exists(f"{place}/tasks")


def limit(places: Sequence[str], resources: Json, journal: Journal | None = None) -> None:
    """Set limits; ``journal`` gets what was there before.

    Raises OSError with the file, InvalidArgument for what no controller here can do, FailedPrecondition for what is
    in use beyond a limit.
    """
    if is_unified(places):
        _limit_unified(places[0], resources, journal)
        return
    found = {name: place for place in places for name in _controllers(place)}

    def read(controller: str, file: str) -> str:
        try:
            return _read(f"{found[controller]}/{file}").strip()
        except (KeyError, OSError):
            return ""

    for controller, file, value in cgroup_v1.settings(resources, read):
        if controller not in found:
            raise InvalidArgument(
                f"{_field(file)}: limit {file} needs the control group controller {controller}, which is not mounted"
            )
        try:
            _set(f"{found[controller]}/{file}", value, journal)
        except OSError as error:
            if error.errno != errno.EBUSY or file != "memory.limit_in_bytes":
                raise
            used, peak = read(controller, "memory.usage_in_bytes"), read(controller, "memory.max_usage_in_bytes")
            usage = f"current usage: {used}, peak usage: {peak}"
            raise FailedPrecondition(
                f"linux.resources.memory.limit: unable to set memory limit to {value} ({usage})"
            ) from error
        if file == "cpu.shares" and read(controller, file) != value:
            raise InvalidArgument(f"linux.resources.cpu.shares {value} is beyond what Linux takes, 2 to 262144")


def _limit_unified(place: str, resources: Json, journal: Journal | None) -> None:
    memory = resources.get("memory") or {}
    if memory.get("checkBeforeUpdate") and memory.get("limit", 0) > 0:
        used = int(_read(f"{place}/memory.current"))
        if used > memory["limit"]:
            raise FailedPrecondition(f"linux.resources.memory.limit {memory['limit']} is below what is used, {used}")
    for file, value in cgroup_v2.settings(resources, os.path.exists(f"{place}/io.bfq.weight")):
        if controller := cgroup_v2.missing(place, file):
            if cgroup_v2.is_without_swap(place, file, value):
                continue
            raise InvalidArgument(
                f"{_field(file)}: limit {file} needs the control group controller {controller}, which is not here"
            )
        _set(f"{place}/{file}", value, journal)
    if resources.get("devices"):
        device_filter.attach(place, resources["devices"])


def _set(path: str, value: str, journal: Journal | None) -> None:
    try:
        if journal is not None:
            journal.keep(path, _read(path), value)
        write(path, value)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({_field(path)})", path) from error


def _field(path: str) -> str:
    return limit_names.field(os.path.basename(path))


def is_out_of_memory(places: Sequence[str]) -> bool:
    """Return whether Linux has ended a process of the groups because they may not have more memory."""
    for place in places:
        for file in ("memory.oom_control", "memory.events"):
            if os.path.exists(f"{place}/{file}"):
                counts = dict(line.split() for line in _read(f"{place}/{file}").splitlines())
                return counts.get("oom_kill", "0") != "0"
    return False


def _controllers(place: str) -> list[str]:
    # /sys/fs/cgroup/cpu,cpuacct/…: the hierarchy's directory is named after its controllers.
    parts = place.split("/")
    return parts[4].split(",") if len(parts) > 4 else []


def freezing(places: Sequence[str], frozen: bool = True) -> Iterator[None]:
    """Make all processes stand still, or go on; yields as long as the caller is to wait for `PAUSE`.

    Raises FailedPrecondition without a freezer, DeadlineExceeded.
    """
    file = _freezer(places)
    version_1 = file.endswith("freezer.state")
    word = {True: "FROZEN", False: "THAWED"}[frozen] if version_1 else str(int(frozen))
    deadline = time.monotonic() + FREEZING
    write(file, word)
    while _frozen(file) != str(int(frozen)):
        if time.monotonic() > deadline:
            write(file, "THAWED" if version_1 else "0")
            raise DeadlineExceeded(f"the container's processes did not stand still in {FREEZING:.0f} s; they go on")
        yield
        if version_1:
            write(file, word)  # a process that was forked meanwhile is caught by another try


def freeze(places: Sequence[str], frozen: bool = True) -> None:
    """Do what `freezing` does, and wait for it."""
    for _ in freezing(places, frozen):
        time.sleep(PAUSE)


def is_frozen(places: Sequence[str]) -> bool:
    """Return whether the processes stand still; groups that are gone do not."""
    try:
        return _frozen(_freezer(places)) == "1"
    except (FailedPrecondition, OSError):
        return False


def check_empty(places: Iterable[str]) -> None:
    """Check that groups which were there have no processes, as runc does since 1.2. Raises FailedPrecondition.

    They would be measured, limited, stopped and killed with the container.
    """
    if found := {pid for place in places for pid in linux.processes_in(place)}:
        raise FailedPrecondition(f"container's cgroup is not empty: {len(found)} process(es) found; end or move them")


def check_thaw(places: Sequence[str]) -> None:
    """Check that a process which enters the groups can run on. Raises FailedPrecondition.

    In a frozen group, or below one, it would stand still before it can say so, and its maker would wait forever.
    """
    try:
        file = _freezer(places)
    except FailedPrecondition:
        return  # no freezer: nothing can be frozen
    own = _read(f"{os.path.dirname(file)}/cgroup.freeze").strip() if file.endswith("cgroup.freeze") else "0"
    if _frozen(file) != "0" or own != "0":
        raise FailedPrecondition(f"container's cgroup unexpectedly frozen: {os.path.dirname(file)}; thaw it first")


def _freezer(places: Sequence[str]) -> str:
    for place in places:
        for file in ("freezer.state", "cgroup.freeze"):
            if os.path.exists(f"{place}/{file}"):
                return f"{place}/{file}"
    raise FailedPrecondition("the container has no control group with a freezer, so it cannot be paused")


def _frozen(file: str) -> str:
    if file.endswith("freezer.state"):
        return {"FROZEN": "1", "THAWED": "0"}.get(_read(file).strip(), "")
    events = dict(line.split() for line in _read(f"{os.path.dirname(file)}/cgroup.events").splitlines())
    return events.get("frozen", "0")


def processes(places: Sequence[str]) -> list[int]:
    """Return the processes of the groups, sorted."""
    if not places:
        return []
    return sorted(linux.processes_in(_first(places)))


def signal_all(places: Sequence[str], number: int) -> bool:
    """Send a signal to all processes, and return whether there was any."""
    group = _first(places)
    if number == signal.SIGKILL and os.path.exists(f"{group}/cgroup.kill"):
        found = bool(linux.processes_in(group))
        write(f"{group}/cgroup.kill", "1")
        return found
    # One that forks in between is met in the next round; only SIGKILL goes to everybody, also to new ones.
    met: set[int] = set()
    for _ in range(KILL_ROUNDS if number == signal.SIGKILL else 1):
        new = [pid for pid in linux.processes_in(group) if pid not in met]
        if not new:
            break
        for pid in new:
            met.add(pid)
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
    return bool(met)


def _first(places: Sequence[str]) -> str:
    # All have the same processes; that of version 2 can kill them at once.
    return next((place for place in places if os.path.exists(f"{place}/cgroup.kill")), places[0])


def _read(path: str) -> str:
    # A page or less, but for lists of processes, which are read elsewhere.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, MOST).decode(errors="replace")
    finally:
        os.close(descriptor)


def write(path: str, value: str) -> None:
    """Write a file of a control group. Raises OSError with its path and the value."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value.strip()[:80]!r}: {error.strerror}", path) from error
