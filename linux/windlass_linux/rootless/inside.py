"""The first process of a rootless daemon's namespaces: it prepares them, starts windlassd, and ends with it.

It is process 1 of a PID namespace, so Linux kills whatever is left inside, shims and containers, when it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from windlass_linux import calls as linux
from windlass_linux.rootless.network import Network
from windlass_linux.rootless.places import Own, Places

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
HIDDEN = ".host"
AGAIN, WITHIN = 5, 60.0
"""How often windlassd is started again after it was killed, and in how many seconds."""


def prepare(places: Places, network: Network) -> None:
    """Show the user's directories at root's paths, this PID namespace's /proc, and the network's name server."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_SLAVE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    for directory, own in places.shadows().items():
        _shadow(Path(directory), own)
    if network.own:
        if network.name_server:
            resolve = Path("/etc/resolv.conf")
            resolve.unlink(missing_ok=True)
            resolve.write_text(f"nameserver {network.name_server}\n")
        # So that ping works without CAP_NET_RAW: the namespace is ours (icmp(7)).
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65535")
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def serve(command: Sequence[str]) -> int:
    """Run windlassd, forward signals to it, reap what is orphaned; return its exit code.

    A windlassd that is killed is started again, as systemd does it for root's: containers go on meanwhile.
    """
    starts: list[float] = []
    while True:
        starts.append(time.monotonic())
        status = os.waitstatus_to_exitcode(_run(command))
        recent = [start for start in starts if start > time.monotonic() - WITHIN]
        if status not in (-signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT) or len(recent) > AGAIN:
            return status if status >= 0 else 128 - status
        say(f"windlassd was ended by signal {-status}; it is started again")


def say(text: str) -> None:
    """Write a line where the daemon's log goes."""
    sys.stderr.write(f"windlassd-rootless: {text}\n")
    sys.stderr.flush()


def _run(command: Sequence[str]) -> int:
    """Run a command and return its wait status; other children are reaped meanwhile."""
    daemon = subprocess.Popen(command, start_new_session=False)
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: daemon.send_signal(received))
    while True:
        pid, status = os.wait()
        if pid == daemon.pid:
            daemon.returncode = status
            return status


def _shadow(directory: Path, own: Own) -> None:
    """Cover a directory with one that can be written: the host's entries, and ``own`` in front of them."""
    if not directory.is_dir():
        return
    # Copies of the trees as they are now: a bind made later would have the tmpfs in it.
    sources = {name: _copy(path) for name, path in own.items() if path}
    below = _copy(directory)
    linux.mount("tmpfs", directory, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=64m")
    hidden = directory / HIDDEN
    _attach(below, hidden)
    for entry in os.scandir(hidden):
        place = directory / entry.name
        if entry.name in own:
            continue
        if entry.is_dir(follow_symlinks=False):
            # Not a link: paths of mounts are compared as text, and those of links are resolved.
            _attach(_copy(Path(entry.path)), place)
        elif entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
        else:
            place.symlink_to(f"{HIDDEN}/{entry.name}")
    for name in own:
        if name in sources:
            _attach(sources[name], directory / name)
        else:
            (directory / name).mkdir()


def _copy(path: Path) -> int:
    """Return a detached copy of what is mounted at a path and below it."""
    return linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_RECURSIVE)


def _attach(tree: int, place: Path) -> None:
    """Mount a detached tree at a new directory."""
    place.mkdir()
    try:
        linux.move_mount(tree, "", linux.AT_FDCWD, place, linux.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
