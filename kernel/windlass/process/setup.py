"""What the daemon does to its own process before plugins start (docs/containerd 1.2).

Directories, limit of descriptors, temporary directory, OOM score, control group, and systemd's socket.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from windlass.config.loading import Config
from windlass.errors import StartError
from windlass.process import nofile

logger = logging.getLogger(__name__)

LOCK_WAIT = 10.0
"""How long a daemon waits for its predecessor on the same root to end."""
UNFINISHED_ADOPTION = Path("adoption", "unfinished")
"""Of `windlassd adopt`: a daemon that starts meanwhile would take half of the records for all."""
CGROUPS = Path("/sys/fs/cgroup")


def prepare(config: Config) -> int:
    """Make the process and its directories ready; returns the descriptor that holds the root until it is closed.

    Raises StartError for what the daemon cannot do without; logs a warning for the rest.
    """
    os.umask(0o022)
    nofile.raise_limit()
    make_directory(config.root, 0o700, f"root ({config.mark('root')})")
    make_directory(config.state, 0o711, f"state ({config.mark('state')})")
    if config.temp:
        make_directory(config.temp, 0o700, f"temp ({config.mark('temp')})")
        os.environ["TMPDIR"] = str(config.temp)
    lock = hold(config.root)
    if (config.root / UNFINISHED_ADOPTION).exists():
        raise StartError(
            f"what is in {config.root} was not all adopted; finish it by windlassd adopt, or windlassd adopt --back"
        )
    if config.top.oom_score:
        set_oom_score(config.top.oom_score)
    if config.top.cgroup.path:
        join_cgroup(config.top.cgroup.path)
    return lock


def make_directory(path: Path, mode: int, name: str) -> None:
    """Make a directory with ``mode``, also if it is there already.

    Raises StartError if it cannot be written, and for one of another owner, who could put things in it for us to
    trust; so could the owner of a link to it.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        for owner in {path.lstat().st_uid, path.stat().st_uid} - {os.geteuid()}:
            remedy = f"choose another, or chown it to {os.geteuid()} if what is in it can be trusted"
            raise StartError(f"{name}: {path} belongs to user {owner} and windlassd runs as {os.geteuid()}; {remedy}")
        path.chmod(mode)
        if not os.access(path, os.W_OK | os.X_OK):
            raise StartError(f"{name}: {path} is not writable; choose another or run as its owner")
    except FileExistsError:
        raise StartError(f"{name}: {path} is not a directory; choose another") from None
    except OSError as error:
        raise StartError(f"{name}: cannot use {path}: {error.strerror}; choose another") from None


def hold(root: Path, wait: float = LOCK_WAIT) -> int:
    """Lock a root directory so that no second daemon works in it; raises StartError after ``wait`` seconds."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR) or time.monotonic() > deadline:
                os.close(descriptor)
                raise StartError(
                    f"root {root} is in use by another windlassd; stop that one or choose --root"
                ) from None
        time.sleep(0.05)


def set_oom_score(score: int, file: Path = Path("/proc/self/oom_score_adj")) -> None:
    """Set the process's oom_score_adj; one that may not be lowered that far is a warning."""
    try:
        file.write_text(str(score))
    except PermissionError:
        # proc(5): below the least value that a process with CAP_SYS_RESOURCE has set needs that capability
        logger.warning("oom_score %d is not set, %s stays: that low needs CAP_SYS_RESOURCE", score, _read(file))
    except OSError as error:
        logger.warning("oom_score %d is not set: %s", score, error.strerror)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return "it"


def join_cgroup(path: str, top: Path = CGROUPS) -> None:
    """Move this process into a control group, made if need be: one of v2, or one in each hierarchy of v1."""
    parts = [part for part in path.split("/") if part]
    if not parts or ".." in parts or "." in parts:
        raise StartError(f'cgroup.path "{path}" is not a path below {top}')
    if (top / "cgroup.controllers").exists():
        hierarchies = [top]
    else:
        hierarchies = [hierarchy for hierarchy in top.iterdir() if hierarchy.is_dir() and not hierarchy.is_symlink()]
    for hierarchy in hierarchies:
        group = hierarchy.joinpath(*parts)
        try:
            _make_group(hierarchy, parts)
            (group / "cgroup.procs").write_text("0")
        except OSError as error:
            raise StartError(f"cannot join control group {group}: {error.strerror}; see cgroup.path") from None


def _make_group(hierarchy: Path, parts: list[str]) -> None:
    """Make a control group and those above it."""
    # Only version 1 has these at its root. A new group has neither processors nor memory there, and no process
    # can join it before it has both (cpuset(7)).
    names = [name for name in ("cpuset.cpus", "cpuset.mems") if (hierarchy / name).exists()]
    group = hierarchy
    for part in parts:
        parent, group = group, group / part
        group.mkdir(exist_ok=True)
        for name in names:
            if not (group / name).read_text().strip():
                (group / name).write_text((parent / name).read_text())


def notify(message: str) -> None:
    """Notify systemd, if it started us and asked for that (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            peer.settimeout(5)
            peer.sendto(message.encode(), address)
    except OSError as error:
        logger.warning("cannot tell systemd %s: %s", message, error)
