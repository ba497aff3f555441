"""A shim whose workers count themselves, for the keeper's tests: each leaves 450 pipes to the next, the third ends."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from windlass_shim_runc.keeper import FIRST, Handover, KeeperLine, keep

PIPES = 450
"""More descriptors than go into one packet."""

STATE = b"x" * (3 << 20)
"""More than goes into one."""


def serve(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Keep; a line is written to the file of the first argument by each worker."""
    listener = descriptors[0]

    def work(line: KeeperLine) -> None:
        count = line.handover.state[:1]
        if count:
            socket.socket(fileno=os.dup(listener)).accept()[0].close()
            read = b"".join(os.read(line.handover.take(number), 9) for number in range(1, 2 * PIPES, 2))
        with open(arguments[0], "ab") as file:
            file.write(b"first\n" if not count else b"next %d %d\n" % (len(read), len(line.handover.state)))
        if count == b"2":
            return
        handover = Handover()
        for _ in range(PIPES):
            reading, writing = os.pipe()
            os.write(writing, b"x")
            handover.put(reading)
            handover.put(writing)
        handover.state = (b"2" if count else b"1") + STATE
        if not count:
            begin_in_vain(line)
        line.hand_over(handover)

    return keep(listener, work)


def begin_in_vain(line: KeeperLine) -> None:
    """Leave the first packet of a handover, as a worker does whose second cannot be sent."""
    reading, writing = os.pipe()
    rights = array.array("i", [reading, writing])
    control = socket.socket(fileno=os.dup(line.fileno()))
    with control:
        control.sendmsg([FIRST], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(reading)
    os.close(writing)
