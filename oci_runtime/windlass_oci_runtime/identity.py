"""Makes this process what the specification says of it, up to the moment of execve(2)."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # typeshed leaves it out; signal makes enums
import errno
import os
import resource
import stat

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime import capability, home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Json
    from windlass_oci_runtime.listener import Handover
    from windlass_oci_runtime.seccomp import Filter

OTHER_LIMITS = {"RLIMIT_LOCKS": 10}
"""Those that Python does not name."""
UNLIMITED = (1 << 64) - 1


class Process:
    """A process of the specification, with what can be refused before there is one."""

    __slots__ = (
        "args",
        "capabilities",
        "cwd",
        "env",
        "groups",
        "limits",
        "no_new_privileges",
        "preserved",
        "spec",
        "umask",
        "user",
    )

    def __init__(self, spec: Json) -> None:
        """Read a process. Raises InvalidArgument."""
        user = spec.get("user") or {}
        self.spec = spec
        self.args: list[str] = spec["args"]
        self.env: list[str] = spec.get("env") or []
        self.cwd: str = spec["cwd"]
        self.user = (_id(user, "uid"), _id(user, "gid"))
        self.groups: list[int] = user.get("additionalGids") or []
        self.umask: int = user.get("umask", 0o22)
        self.limits = [_limit(each) for each in spec.get("rlimits") or []]
        self.preserved = 0
        """Descriptors, from 3 on, that the program has too."""
        self.no_new_privileges: bool = spec.get("noNewPrivileges", False)
        # One that names none has none, as with runc; without this it would keep all of root's.
        self.capabilities = capability.Sets(spec.get("capabilities") or {})


def _id(user: Json, name: str) -> int:
    number = user.get(name, 0)
    if not 0 <= number < (1 << 32) - 1:
        raise InvalidArgument(f"process.user.{name} {number} is not an ID of Linux")
    return int(number)


def _limit(each: Json) -> tuple[int, int, int]:
    name = each.get("type", "")
    number = getattr(resource, name, OTHER_LIMITS.get(name)) if name.startswith("RLIMIT_") else None
    if not isinstance(number, int):
        raise InvalidArgument(f"process.rlimits: {name[:40]!r} is not a limit of Linux")
    soft, hard = each.get("soft", 0), each.get("hard", 0)
    if soft > hard:
        raise InvalidArgument(f"process.rlimits: {name} has a soft limit, {soft}, above the hard one, {hard}")
    infinite = resource.RLIM_INFINITY
    return number, infinite if soft >= UNLIMITED >> 1 else soft, infinite if hard >= UNLIMITED >> 1 else hard


def take_on(process: Process, filter: Filter | None, last_capability: int, handover: Handover) -> None:
    """Become what the specification says, in the order that Linux wants; `restrict` comes last.

    Without no_new_privs only a process with CAP_SYS_ADMIN may install a filter, so it comes before the user.
    """
    process.env = home.added(process.env, process.user[0])
    set_limits(process)
    own_streams(process.user[0])
    if filter is not None and not process.no_new_privileges:
        handover.offer(filter.install())
    is_there = _may_enter(process)
    become(process, last_capability)
    os.umask(process.umask)
    if not is_there:
        enter_directory(process)
    if process.no_new_privileges:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def restrict(process: Process, filter: Filter | None, handover: Handover) -> None:
    """Install the filter of a process with no_new_privs: late, so that it has to allow few of our own calls."""
    if filter is not None and process.no_new_privileges:
        handover.offer(filter.install())


def set_limits(process: Process) -> None:
    """Set the limits of setrlimit(2)."""
    for each, (number, soft, hard) in zip(process.spec.get("rlimits") or (), process.limits, strict=True):
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError:  # Python's word for EPERM
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"{each['type']} {soft}:{hard}") from None


def own_streams(uid: int) -> None:
    """Give the standard streams to the user, who could not open /dev/stdout otherwise; others' devices stay theirs."""
    for number in (0, 1, 2):
        found = os.fstat(number)
        is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)
        if found.st_uid == uid or is_null:
            continue
        try:
            os.fchown(number, uid, -1)
        except OSError as error:
            # A file of another user namespace, or of a file system that takes no changes.
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS):
                raise


def set_oom_score(process: Process) -> None:
    """Say how soon this process is killed when memory is short; while the host's /proc is still here."""
    score = process.spec.get("oomScoreAdj")
    if score is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"process.oomScoreAdj {score}") from None


def become(process: Process, last_capability: int) -> None:
    """Take user, groups and capabilities; root of the host is no more from here on."""
    sets = process.capabilities
    capability.drop_bounding(sets, last_capability)
    capability.keep_over_setuid(True)
    uid, gid = process.user
    os.setgroups(process.groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    capability.keep_over_setuid(False)
    capability.apply(sets, last_capability)


def _may_enter(process: Process) -> bool:
    """Go to the working directory as root, who may where the user may not; False where it is the other way round."""
    try:
        enter_directory(process)
    except PermissionError:
        return False
    return True


def enter_directory(process: Process) -> None:
    """Go to the working directory. Raises OSError, also if it is not in the root file system any more."""
    os.chdir(process.cwd)
    # getcwd(2) says "(unreachable)" of a directory outside of the root: a descriptor of the host's, say.
    if not os.getcwd().startswith("/"):
        raise OSError(2, "it is outside of the container's root file system", process.cwd)


def reset_signals() -> None:
    """Give every signal its default, and block none."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    # clone3(2) has taken our handlers away, and Python knows what is ignored: 60 system calls less.
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)


def seal(preserved: int = 0) -> None:
    """Leave nothing open but the standard streams, and what is to be preserved, once the program runs."""
    linux.close_range(3 + preserved, flags=linux.CLOSE_RANGE_CLOEXEC)
