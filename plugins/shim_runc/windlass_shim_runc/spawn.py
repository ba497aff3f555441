"""Executes programs (the OCI runtime, loggers) with nothing of the shim's own but what they are given.

By the C library's posix_spawn(3), a vfork that takes a millisecond, but not by
`os.posix_spawn`: glibc's leaves the signals that it keeps for itself, 32 and 33,
ignored in the new process unless the caller wants their default, which Python
refuses to pass on. A signal that is ignored stays so across execve(2), for a
runtime down to the container's own processes.
"""

# ruff: noqa: PTH208
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import ctypes
import os

from windlass.process import nofile
from windlass_linux import calls as linux
from windlass_shim_runc import disk
from windlass_shim_runc.signals import SIGKILL, SIGSTOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETPGROUP, SETSIGDEF, SETSIGMASK = 0x02, 0x04, 0x08
"""Flags of spawn.h, of the same value in glibc and musl."""

EVERY_SIGNAL, NO_SIGNAL = b"\xff" * 128, bytes(128)
"""As a sigset_t."""

ROOM = 512
"""More bytes than the C library's posix_spawnattr_t (336) and posix_spawn_file_actions_t (80) have."""

NULL = b"/dev/null"
STANDARD = (0, 1, 2)


def spawn(argv: Sequence[str], environment: Mapping[str, str], directory: str, given: Mapping[int, int]) -> int:
    """Execute a program in a process group of its own and return its pid.

    ``given`` maps its descriptors to ours, which are higher than any of its; standard ones that are
    not in it are /dev/null. It works in ``directory``, or where we do when that is gone.
    Every signal has its default. Raises OSError.
    """
    libc = linux.libc()
    attributes, actions = ctypes.create_string_buffer(ROOM), ctypes.create_string_buffer(ROOM)
    libc.posix_spawnattr_init(attributes)
    libc.posix_spawn_file_actions_init(actions)
    try:
        libc.posix_spawnattr_setflags(attributes, SETPGROUP | SETSIGDEF | SETSIGMASK)
        libc.posix_spawnattr_setsigdefault(attributes, EVERY_SIGNAL)
        libc.posix_spawnattr_setsigmask(attributes, NO_SIGNAL)
        for fd in STANDARD:
            if fd not in given:
                libc.posix_spawn_file_actions_addopen(actions, fd, NULL, os.O_RDWR, 0)
        for fd, ours in given.items():
            libc.posix_spawn_file_actions_adddup2(actions, ours, fd)
        if disk.exists(f"{directory}/"):
            libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(directory))
        pid = ctypes.c_int()
        words, settings = _texts(argv), _texts([f"{name}={value}" for name, value in environment.items()])
        with nofile.Found():
            code = libc.posix_spawnp(ctypes.byref(pid), words[0], actions, attributes, words, settings)
    finally:
        libc.posix_spawn_file_actions_destroy(actions)
        libc.posix_spawnattr_destroy(attributes)
    if code:
        raise OSError(code, os.strerror(code), argv[0])
    return pid.value


def kill_all(pid: int) -> None:
    """Kill a program that was spawned, with all that it has started and not yet left.

    A runtime's own child is in a session of its own, and one that waits in a frozen cgroup would
    run the user's program, unseen, when that is thawed.
    """
    found = [pid]
    for each in found:
        # First to a halt, so that it starts no more while we look.
        _kill(each, SIGSTOP)
        found += _children(each)
    for each in found:
        _kill(each, SIGKILL)
    try:
        os.killpg(pid, SIGKILL)
    except ProcessLookupError:
        return


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _children(pid: int) -> list[int]:
    """Return the children that all threads of a process have now."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, disk.read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        # It has ended, or Linux was built without CONFIG_PROC_CHILDREN.
        return found
    return found


def _texts(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """Return a C array of strings that ends with a null pointer."""
    return (ctypes.c_char_p * (len(words) + 1))(*[os.fsencode(word) for word in words])
