"""Takes from a worker what it does not need: it reads what strangers have made."""

# ruff: noqa: PTH123
# pathlib is half a megabyte that each worker would have of its own.
from __future__ import annotations

import ctypes
import os
import struct

from windlass_linux import calls as linux

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID = range(5)
SYS_CHROOT, SYS_ADMIN, SYS_RESOURCE, MKNOD, SETFCAP, MAC_ADMIN = 18, 21, 24, 27, 31, 33

KEPT = (
    *(CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP),  # whatever a layer may say of a file
    *(SYS_CHROOT, SYS_ADMIN),  # to go to where it works, with mounts of its own; trusted.overlay.* attributes
    SYS_RESOURCE,  # the blocks that a filesystem keeps for root
    MAC_ADMIN,  # a security.selinux attribute that this machine's policy does not know
)
"""Capabilities of a worker (capabilities(7)); ours that are not here are given up."""

SCORE = 100
"""A worker's oom_score_adj, at least: before the daemon, and before containers, a pull is what can be done again."""

MAX_SCORE = 1000
VERSION_3 = 0x20080522
HEADER, SETS = struct.Struct("=Ii"), struct.Struct("=6I")


def raise_oom_score() -> None:
    """Become a likely victim of the OOM killer."""
    with open("/proc/self/oom_score_adj", "r+") as file:
        score = min(max(int(file.read()) + 1, SCORE), MAX_SCORE)
        file.seek(0)
        file.write(str(score))


def give_up_privileges() -> None:
    """Keep only what is needed, in this thread and in those that it begins, and in what is executed from now on.

    Not before stream processors run, which get what the daemon has: an execve(2) by which they gained it again would
    also undo that they die with us (PR_SET_PDEATHSIG).
    """
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    kept = sum(1 << number for number in KEPT)
    header, sets = ctypes.create_string_buffer(HEADER.pack(VERSION_3, 0)), ctypes.create_string_buffer(SETS.size)
    _check(linux.libc().capget(header, sets))
    low, high = kept & 0xFFFFFFFF, kept >> 32
    effective_low, permitted_low, _, effective_high, permitted_high, _ = SETS.unpack(sets.raw[: SETS.size])
    sets = ctypes.create_string_buffer(
        SETS.pack(effective_low & low, permitted_low & low, 0, effective_high & high, permitted_high & high, 0)
    )
    _check(linux.libc().capset(header, sets))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
