"""Runs a function in a process that shares this one's memory, and has descriptors, namespaces and rights of its own.

As vfork(2) does, this process stands still meanwhile. No page is copied, which is what a fork of Python costs: a
millisecond for the tables, and as much again for the pages that both touch. What the function sets, the caller finds.
"""

from __future__ import annotations

import ctypes
import os
import signal

from windlass_oci_runtime.clone import CLONE_PARENT, library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_VM = 0x100
CLONE_VFORK = 0x4000

STACK = 512 << 10
PROT_READ_WRITE = 3
MAP_PRIVATE_ANONYMOUS = 0x22
MAP_FAILED = ctypes.c_void_p(-1).value

_Callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

_stack = 0


def run(function: Callable[[], None], sibling: bool = False) -> int:
    """Return the pid of the process, which has ended, and may not be reaped yet.

    ``function`` has to return: it must raise nothing, execute nothing, and not end the process, whose interpreter is
    this one's. Nor may it enter a control group, where the process could be frozen, or killed and this one with it.
    The process is a child of our parent as a ``sibling``. Raises OSError.
    """
    flags = CLONE_VM | CLONE_VFORK | signal.SIGCHLD | (CLONE_PARENT if sibling else 0)

    def begin(_: int | None) -> int:
        function()
        return 0

    # Its own stack: on ours it would write over what we return to.
    top = ctypes.c_void_p(_stack_of_children() + STACK)
    pid = int(library().clone(_Callback(begin), top, ctypes.c_int(flags), None))
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "clone")
    return pid


def _stack_of_children() -> int:
    global _stack
    if not _stack:
        mmap = library().mmap
        mmap.restype = ctypes.c_void_p
        mapped = mmap(None, ctypes.c_size_t(STACK), PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))
        if mapped == MAP_FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "mmap")
        _stack = int(mapped)
    return _stack
