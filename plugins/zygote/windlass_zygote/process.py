"""The zygote itself: imports modules, then forks children that run an entry of one of them.

Single-threaded, and it imports nothing that starts threads. Children are reaped
by Linux (SIGCHLD ignored) and go to the nearest subreaper when the zygote dies;
the zygote dies when the daemon does, by end of file on its socket.

Zygote and child touch as little as they can: the page of every object that is
used stops being shared, and what the zygote uses between two forks is another
page for each child. So the request is parsed by the child, and the C modules
below `signal` and `socket` spare it their enums, 200 and 300 KB of memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # not in typeshed
import _socket
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from windlass import linux
from windlass_zygote import messages

Entry = Callable[[Sequence[str], Sequence[int]], int]

STDERR = 2

PRELOAD = b'{"preload"'
"""How a request for imports begins; all others are forks."""

DESCRIPTOR = struct.Struct("i")

SIGCHLD, SIGINT, SIG_DFL, SIG_SETMASK = (
    int(n) for n in (signal.SIGCHLD, signal.SIGINT, signal.SIG_DFL, signal.SIG_SETMASK)
)


def main(descriptor: int) -> None:
    """Serve the daemon on a connected SOCK_SEQPACKET socket until it is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    linux.set_name("windlass-zygote")
    title = _title_memory()
    set_title(title, "windlass-zygote")
    gc.disable()
    control = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    space = _socket.CMSG_SPACE(messages.MAX_DESCRIPTORS * DESCRIPTOR.size)
    while True:
        try:
            data, ancillary, _, _ = control.recvmsg(messages.MAX_MESSAGE, space, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return
        if not data:
            return
        descriptors = [fd for _, _, rights in ancillary for (fd,) in DESCRIPTOR.iter_unpack(rights)]
        if data.startswith(PRELOAD):
            preload(json.loads(data)["preload"])
            settle()
        else:
            fork(data, descriptors, title)
        for fd in descriptors:
            os.close(fd)


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
    gc.freeze()
    linux.libc().malloc_trim(0)


def fork(request: bytes, descriptors: Sequence[int], title: range) -> None:
    """Fork a child that announces itself on ``descriptors[0]`` and runs the entry with the others."""
    try:
        pid = os.fork()
    except OSError as error:
        with socket.socket(fileno=os.dup(descriptors[0])) as reply:
            answer(reply, {"error": f"fork: {error.strerror}"})
        return
    if pid:
        return
    status = 1
    try:
        status = child(json.loads(request), descriptors, title)
    finally:
        # A traceback is for the daemon's log; the zygote's own frames above must never be run by a child.
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(status)


# Any: a JSON object as parsed, from our own other side.
def child(request: dict[str, Any], descriptors: Sequence[int], title: range) -> int:
    """Become a process of its own, then run the entry once the caller has taken the pid."""
    os.setsid()
    reset_signals()
    close_all_but(descriptors)
    entry, arguments = request["entry"], request["arguments"]
    set_title(title, " ".join([entry, *arguments]))
    try:
        function = load(entry)
    except (ImportError, AttributeError, ValueError) as error:
        with socket.socket(fileno=descriptors[0]) as reply:
            answer(reply, {"error": f"{type(error).__name__}: {error}"})
        return 1
    if not is_wanted(descriptors[0], request["timeout"]):
        return 1
    gc.enable()
    return function(arguments, descriptors[1:])


def is_wanted(descriptor: int, timeout: float) -> bool:
    """Tell the caller pid and pidfd of this process; False when nobody has taken them in time."""
    reply = _socket.socket(fileno=descriptor)
    pidfd = os.pidfd_open(os.getpid())
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, DESCRIPTOR.pack(pidfd))]
        reply.sendmsg([b'{"pid": %d}' % os.getpid()], rights, _socket.MSG_NOSIGNAL)
        reply.settimeout(timeout)
        return bool(reply.recv(1))
    except OSError:
        return False
    finally:
        os.close(pidfd)
        reply.close()


def load(entry: str) -> Entry:
    """Return the function that ``module:function`` names; normally its module is imported already."""
    module, colon, name = entry.partition(":")
    if not colon:
        raise ValueError(f"entry {entry!r} is not module:function")
    found = sys.modules.get(module) or importlib.import_module(module)
    # An attribute of a module has no type; the caller's entry point is trusted to be an Entry.
    function: Entry = getattr(found, name)
    return function


def answer(reply: socket.socket, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
    """Send an answer; nobody reading it any more is the caller's choice."""
    try:
        messages.send(reply, message, descriptors)
    except (BrokenPipeError, ConnectionResetError):
        return


def reset_signals() -> None:
    """Restore what the zygote and Python changed, but SIGPIPE, which Python programs ignore."""
    _signal.signal(SIGCHLD, SIG_DFL)
    _signal.signal(SIGINT, signal.default_int_handler)
    _signal.pthread_sigmask(SIG_SETMASK, ())


def close_all_but(descriptors: Sequence[int]) -> None:
    """Close every descriptor above standard error that is not listed."""
    first = STDERR + 1
    for fd in sorted(descriptors):
        if fd > first:
            linux.close_range(first, fd - 1)
        first = fd + 1
    linux.close_range(first)


def _title_memory() -> range:
    """Return the addresses of this process's arguments, which `ps` reads (fields 48 and 49 of proc_pid_stat(5))."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return range(int(stat[45]), int(stat[46]))


def set_title(memory: range, title: str) -> None:
    """Show ``title`` in `ps` in place of the arguments, cut to their length."""
    data = title.encode(errors="replace")[: len(memory) - 1]
    ctypes.memmove(memory.start, data.ljust(len(memory), b"\0"), len(memory))
