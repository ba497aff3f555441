"""The first instructions of a filter: system calls that are newer than its profile do not exist (ENOSYS).

C libraries try a new call first, and take an older one when Linux does not know it; EPERM, which most profiles have for
what they do not name, they take as an answer. So runc and we answer ENOSYS for numbers above all that a profile names.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOAD, JUMP_EQUAL, JUMP_GREATER, JUMP_SET, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
"""bpf(2) of old: BPF_LD|BPF_W|BPF_ABS, BPF_JMP with BPF_JEQ, BPF_JGT, BPF_JSET and BPF_K, BPF_RET|BPF_K."""
NUMBER, ARCHITECTURE = 0, 4
"""Offsets in struct seccomp_data."""
X32_BIT = 0x40000000
ENOSYS = 0x00050000 | 38

_INSTRUCTION = struct.Struct("=HBBI")


def prefix(newest: Sequence[tuple[int, int]]) -> bytes:
    """Return instructions that go before a filter; ``newest`` has for each architecture its token and last number.

    Numbers of x32, whose token is x86_64's, are the filter's own to judge.
    """
    code = [(LOAD, 0, 0, ARCHITECTURE)]
    for token, number in newest:
        # Not this architecture: over the five that follow.
        code += [
            (JUMP_EQUAL, 0, 5, token),
            (LOAD, 0, 0, NUMBER),
            (JUMP_SET, 2, 0, X32_BIT),
            (JUMP_GREATER, 0, 1, number),
            (RETURN, 0, 0, ENOSYS),
            (LOAD, 0, 0, ARCHITECTURE),
        ]
    return b"".join(_INSTRUCTION.pack(*each) for each in code) if newest else b""
