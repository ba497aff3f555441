"""A process that joins namespaces, and makes another in them that is seen there only when it is there whole.

A process that joins the PID namespace first shows those inside the host's root at /proc/PID/root, until it has joined
the mount namespace. So the stage stays in the host's PID namespace, and its sibling is the container's.
"""

from __future__ import annotations

import os
import select
import signal

from windlass_oci_runtime import steps
from windlass_oci_runtime.clone import clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from windlass_oci_runtime.steps import Steps

PATIENCE = 10.0
"""Seconds for a stage, which takes a millisecond; one in a control group that is frozen stands still."""


def made(sibling: bool, group: int, writer: int, stage: Callable[[int], Steps]) -> int:
    """Run ``stage`` in a process, and return the pid that it writes into the pipe that it is given.

    ``writer`` takes its failure; the other arguments are `clone`'s. Raises Failure, OSError.
    """
    reader, pid_writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = clone(0, sibling, group)
        if not pid:
            steps.run(stage(pid_writer), writer)
        os.close(pid_writer)
        pid_writer = -1
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            os.kill(pid, signal.SIGKILL)
        found = os.read(reader, 16)
        if not sibling:
            os.waitpid(pid, 0)
        return int(found or 0)
    finally:
        for descriptor in (reader, pid_writer):
            if descriptor >= 0:
                os.close(descriptor)


def leave(process: Callable[[], NoReturn], flags: int, pid_writer: int) -> NoReturn:
    """In the stage: make the process with ``flags`` of clone3(2), write its pid, and end."""
    pid = clone(flags, sibling=True)
    if not pid:
        os.close(pid_writer)
        process()
    os.write(pid_writer, b"%d" % pid)
    os._exit(0)
