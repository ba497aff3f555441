"""A keeper that gets SIGTERM before its fork has returned; exits with its worker's status."""

from __future__ import annotations

import os
import signal
import sys
import time

from windlass_shim_runc import keeper
from windlass_shim_runc.keeper import KeeperLine
from windlass_shim_runc.signals import handle, release_stop_signals

STOPPED = 7


def fork() -> int:
    pid = os.fork()
    if pid:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # Python calls the handler here
    return pid


def work(_line: KeeperLine) -> None:
    handle(signal.SIGTERM, lambda _number, _frame: os._exit(STOPPED))
    release_stop_signals()
    time.sleep(5)


if __name__ == "__main__":
    keeper.fork = fork
    sys.exit(keeper.keep(-1, work))
