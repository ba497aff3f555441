"""The zygote itself: imports modules, then forks children that run an entry of one of them.

Single-threaded, and it imports nothing that starts threads. Children are reaped
by Linux (SIGCHLD ignored) and go to the nearest subreaper when the zygote dies;
the zygote dies when the daemon does, by end of file on its socket.

A child is forked before it is known what it will run: it sends its pid and
waits for a request, so that a caller need not wait for the fork.

Zygote and child touch as little as they can: the page of every object that is
used stops being shared, and what the zygote uses between two forks is another
page for each child. So the request goes to the child, and the C modules below
`signal` and `socket` spare it their enums, 200 and 300 KB of memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # not in typeshed
import _socket
import gc
import importlib
import marshal
import os
import struct
import sys

from windlass.process import nofile
from windlass_linux import calls as linux
from windlass_zygote import gaps

# Not from typing, and no abstract classes at run time: together they would be a megabyte in every shim.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Entry = Callable[[Sequence[str], Sequence[int]], int]

STDERR = 2

MAX_MESSAGE = 128 << 10
"""Longest packet; arguments are a handful of paths, so anything longer is a mistake."""

MAX_DESCRIPTORS = 64
"""Well below the 253 of SCM_MAX_FD."""

FAILED = "!"
"""How an answer begins that says what went wrong."""

LAST_DESCRIPTOR = 2**31 - 1
"""Beyond every descriptor; os.closerange(3) closes such a range in one call (close_range(2))."""

COMM = b"windlass-waits"
"""What `ps -o comm` shows of a child without a request."""

DESCRIPTOR = struct.Struct("i")

SPACE = _socket.CMSG_SPACE(MAX_DESCRIPTORS * DESCRIPTOR.size)


def main(descriptor: int, limit: int) -> None:
    """Serve the daemon on a connected SOCK_SEQPACKET socket until it is gone.

    ``limit`` is the soft limit of open descriptors that the daemon found; programs that children execute get it, while
    the children have the hard one. A packet is, by `marshal`, a list of modules to import, or None and the socket of a
    child to fork.
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    # The sealed program itself came as a descriptor.
    close_all_but((descriptor,))
    nofile.set_limit(limit)
    # Here, once: in each child it would touch pages that can stay shared.
    nofile.raise_limit()
    linux.set_name("windlass-zygote")
    title = _title_memory()
    set_title(title, "windlass-zygote")
    gc.disable()
    control = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    while True:
        data, descriptors = receive(control)
        if not data:
            return
        modules = marshal.loads(data)  # noqa: S302 -- from the daemon, which is ourselves
        if modules is None:
            fork(descriptors[0], title)
        else:
            preload(modules)
            settle()
        for fd in descriptors:
            os.close(fd)


def receive(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """Return a packet and its descriptors; no bytes when the other side has gone."""
    try:
        data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, SPACE, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    return data, [fd for _, _, rights in ancillary for (fd,) in DESCRIPTOR.iter_unpack(rights)]


def answer(sock: _socket.socket, message: bytes, descriptors: bytes = b"") -> bool:
    """Send an answer; False when the other side has gone."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)] if descriptors else []
    try:
        sock.sendmsg([message], rights, _socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def preload(modules: Sequence[str]) -> None:
    """Import modules; one that cannot be imported is reported and the rest goes on."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            sys.stderr.write(f"zygote: cannot import {module}: {error}\n")


def settle() -> None:
    """Put what is there out of the garbage collector's reach, so that children keep sharing its pages."""
    gc.collect()
    gaps.fill()
    gc.freeze()
    linux.libc().malloc_trim(0)


def fork(descriptor: int, title: range) -> None:
    """Fork a child that takes its request from the socket ``descriptor``."""
    try:
        pid = os.fork()
    except OSError as error:
        reply = _socket.socket(fileno=os.dup(descriptor))
        answer(reply, f"{FAILED}fork: {error.strerror}".encode())
        reply.close()
        return
    if pid:
        return
    status = 1
    try:
        status = child(descriptor, title)
    finally:
        # A traceback is for the daemon's log; the zygote's own frames above must never be run by a child.
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(status)


def child(descriptor: int, title: range) -> int:
    """Become a process of its own, say so, and run the entry that is asked for; end without a request."""
    os.setsid()
    reset_signals()
    close_all_but((descriptor,))
    write_comm()
    control = _socket.socket(fileno=descriptor)
    pidfd = os.pidfd_open(os.getpid())
    wanted = answer(control, b"%d" % os.getpid(), DESCRIPTOR.pack(pidfd))
    os.close(pidfd)
    data, descriptors = receive(control) if wanted else (b"", [])
    if not data:
        return 0
    entry, arguments = marshal.loads(data)  # noqa: S302 -- as above
    set_title(title, " ".join([entry, *arguments]))
    try:
        function = load(entry)
    except (ImportError, AttributeError, ValueError) as error:
        answer(control, f"{FAILED}{type(error).__name__}: {error}"[:MAX_MESSAGE].encode())
        return 1
    # One whose caller has given up must not run.
    if not answer(control, b"runs"):
        return 1
    control.close()
    gc.enable()
    return function(arguments, descriptors)


def write_comm() -> None:
    """Show that this is not the zygote; what runs later may name itself."""
    fd = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(fd, COMM)
    os.close(fd)


def load(entry: str) -> Entry:
    """Return the function that ``module:function`` names; normally its module is imported already."""
    module, colon, name = entry.partition(":")
    if not colon:
        raise ValueError(f"entry {entry!r} is not module:function")
    found = sys.modules.get(module) or importlib.import_module(module)
    # An attribute of a module has no type; the caller's entry point is trusted to be an Entry.
    function: Entry = getattr(found, name)
    return function


def reset_signals() -> None:
    """Restore what the zygote and Python changed, but SIGPIPE, which Python programs ignore."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def close_all_but(descriptors: Sequence[int]) -> None:
    """Close every descriptor above standard error that is not listed."""
    first = STDERR + 1
    for fd in sorted(descriptors):
        if fd > first:
            os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, LAST_DESCRIPTOR)


def _title_memory() -> range:
    """Return the addresses of this process's arguments, which `ps` reads (fields 48 and 49 of proc_pid_stat(5))."""
    with open("/proc/self/stat") as file:  # noqa: PTH123 -- pathlib is half a megabyte
        stat = file.read().rpartition(")")[2].split()
    return range(int(stat[45]), int(stat[46]))


def set_title(memory: range, title: str) -> None:
    """Show ``title`` in `ps` instead of the arguments, cut to their length."""
    data = title.encode(errors="replace")[: len(memory) - 1]
    # Not by ctypes, nor is any other call of a child: its conversions touch 100 KB.
    fd = os.open("/proc/self/mem", os.O_WRONLY)
    os.pwrite(fd, data.ljust(len(memory), b"\0"), memory.start)
    os.close(fd)
