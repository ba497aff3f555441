"""The zygote itself: imports modules, then forks children that run an entry of one of them.

Single-threaded, and it imports nothing that starts threads. Children are reaped
by Linux (SIGCHLD ignored) and go to the nearest subreaper when the zygote dies;
the zygote dies when the daemon does, by end of file on its socket.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from windlass import linux

from windlass_zygote import messages

Entry = Callable[[Sequence[str], Sequence[int]], int]

STDERR = 2


def main(descriptor: int) -> None:
    """Serve the daemon on a connected SOCK_SEQPACKET socket until it is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    linux.set_name("windlass-zygote")
    title = _title_memory()
    set_title(title, "windlass-zygote")
    gc.disable()
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    while True:
        try:
            request, descriptors = messages.receive(control)
        except ConnectionResetError:
            return
        if request is None:
            return
        if "preload" in request:
            preload(request["preload"])
            settle()
        else:
            fork(request["entry"], request["arguments"], descriptors, request["timeout"], title)
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


def fork(entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float, title: range) -> None:
    """Fork a child that announces itself on ``descriptors[0]`` and runs ``entry`` with the others."""
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
        status = child(entry, arguments, descriptors, timeout, title)
    finally:
        # A traceback is for the daemon's log; the zygote's own frames above must never be run by a child.
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(status)


def child(entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float, title: range) -> int:
    """Become a process of its own, then run ``entry`` once the caller has taken the pid."""
    os.setsid()
    reset_signals()
    close_all_but(descriptors)
    set_title(title, " ".join([entry, *arguments]))
    with socket.socket(fileno=descriptors[0]) as reply:
        try:
            function = load(entry)
        except (ImportError, AttributeError, ValueError) as error:
            answer(reply, {"error": f"{type(error).__name__}: {error}"})
            return 1
        pidfd = os.pidfd_open(os.getpid())
        answer(reply, {"pid": os.getpid()}, [pidfd])
        os.close(pidfd)
        reply.settimeout(timeout)
        try:
            if not reply.recv(1):
                return 1
        except (TimeoutError, ConnectionResetError):
            return 1
    gc.enable()
    return function(arguments, descriptors[1:])


def load(entry: str) -> Entry:
    """Return the function that ``module:function`` names; normally its module is imported already."""
    module, colon, name = entry.partition(":")
    if not colon:
        raise ValueError(f"entry {entry!r} is not module:function")
    # An attribute of a module has no type; the caller's entry point is trusted to be an Entry.
    function: Entry = getattr(importlib.import_module(module), name)
    return function


def answer(reply: socket.socket, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
    """Send an answer; nobody reading it any more is the caller's choice."""
    try:
        messages.send(reply, message, descriptors)
    except (BrokenPipeError, ConnectionResetError):
        return


def reset_signals() -> None:
    """Restore what the zygote and Python changed, but SIGPIPE, which Python programs ignore."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


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
