"""Makes a process with namespaces of its own in one system call, clone3(2).

The process goes on in Python. It is forked from a process with a single thread, so nothing in it waits for a thread
that it does not have; what Python would do after a fork of its own is for threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE_PARENT = 0x8000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

_NR_CLONE3 = 435
_ARGUMENTS = struct.Struct("=11Q")

_libc: ctypes.PyDLL | None = None


def clone(flags: int, sibling: bool = False, cgroup: int = -1) -> int:
    """Return the new process's pid, and 0 in it.

    ``flags`` are of namespaces. A ``sibling`` is a child of this process's parent. ``cgroup`` is a directory of
    cgroup v2 in which the process begins. It handles no signal; those that we ignore it ignores. Raises OSError.
    """
    flags |= CLONE_CLEAR_SIGHAND
    if sibling:
        flags |= CLONE_PARENT
    if cgroup >= 0:
        flags |= CLONE_INTO_CGROUP
    # A sibling's end is signalled as ours is.
    arguments = _ARGUMENTS.pack(flags, 0, 0, 0, 0 if sibling else signal.SIGCHLD, 0, 0, 0, 0, 0, max(cgroup, 0))
    result = int(library().syscall(ctypes.c_long(_NR_CLONE3), arguments, ctypes.c_long(len(arguments))))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "clone3")
    return result


def library() -> ctypes.PyDLL:
    """Return the C library, for calls over which Python's lock is kept, so that a new process has it."""
    global _libc
    if _libc is None:
        _libc = ctypes.PyDLL(None, use_errno=True)
        _libc.syscall.restype = ctypes.c_long
    return _libc
