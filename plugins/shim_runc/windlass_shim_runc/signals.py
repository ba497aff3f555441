"""Signals by plain numbers: the enumerations of `signal` would be a quarter of a megabyte in every shim."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # typeshed leaves it out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGHUP: int = _signal.SIGHUP
SIGINT: int = _signal.SIGINT
SIGKILL: int = _signal.SIGKILL
SIGSTOP: int = _signal.SIGSTOP
SIGTERM: int = _signal.SIGTERM
SIGCHLD: int = _signal.SIGCHLD
SIG_IGN: int = _signal.SIG_IGN


def handle(number: int, handler: Callable[[int, object], None] | int) -> None:
    """Install a signal handler."""
    _signal.signal(number, handler)


def hold_stop_signals() -> None:
    """Leave SIGTERM and SIGINT waiting until `release_stop_signals`; a fork does so too."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (SIGTERM, SIGINT))


def release_stop_signals() -> None:
    """Let those come that have waited."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (SIGTERM, SIGINT))


def wake_by(fd: int) -> None:
    """Make every handled signal write a byte to ``fd``, which does not block."""
    _signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
