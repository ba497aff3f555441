"""Which devices the processes of a control group of version 2 may use: a small program for Linux (bpf(2)).

A rule that comes later goes over those before it, and what no rule speaks of is refused.
"""

from __future__ import annotations

import ctypes
import os
import struct

from windlass_linux import calls as linux
from windlass_oci_runtime.cgroup_v1 import DEFAULT_DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from windlass_oci_runtime.json_types import Json

    Rule = tuple[bool, str, int, int, str]
    """Whether it allows, type (a, b, c), major and minor (-1 is all), and access."""

NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""Of bpf(2)."""
PROG_LOAD, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID, PROG_QUERY = 5, 8, 9, 13, 16
TYPE_CGROUP_DEVICE, ATTACH_DEVICE, ALLOW_MULTI = 15, 6, 2
KINDS = {"b": 1, "c": 2, "u": 2}
ACCESS = {"m": 1, "r": 2, "w": 4}
ALL_ACCESS = 7
MOST_PROGRAMS = 64
EVERYTHING = (False, "a", -1, -1, "rwm")
"""What no rule allows is refused."""

# Instructions: code, then registers, offset and constant.
LOAD, MOVE, MOVE_CONSTANT, AND, RIGHT = 0x61, 0xBC, 0xB4, 0x54, 0x74
UNLESS_CONSTANT, IF_CONSTANT, UNLESS_EQUAL, EXIT = 0x55, 0x15, 0x5D, 0x95


def rules(devices: Iterable[Json]) -> list[Rule]:
    """Return the rules of the specification, with those that every container has at the end."""
    found = []
    for each in devices:
        major, minor = (each[name] if each.get(name, -1) >= 0 else -1 for name in ("major", "minor"))
        found.append((bool(each.get("allow")), each.get("type") or "a", major, minor, each.get("access") or "rwm"))
    for text in DEFAULT_DEVICES:
        kind, numbers, access = text.split()
        major, minor = (-1 if word == "*" else int(word) for word in numbers.split(":"))
        found.append((True, kind, major, minor, access))
    return found


def program(wanted: Iterable[Rule]) -> bytes:
    """Return the program for a list of rules."""
    blocks = [
        # 2: type of the device, 3: what is wanted of it, 4 and 5: its numbers
        _instruction(LOAD, 2, 1, 0),
        _instruction(MOVE, 3, 2),
        _instruction(AND, 2, constant=0xFFFF),
        _instruction(RIGHT, 3, constant=16),
        _instruction(LOAD, 4, 1, 4),
        _instruction(LOAD, 5, 1, 8),
    ]
    for rule in reversed([EVERYTHING, *wanted]):
        blocks += _block(rule)
        if rule[1:] == EVERYTHING[1:]:
            break  # Linux refuses a program of which a part is never reached
    return b"".join(blocks)


def _block(rule: Rule) -> list[bytes]:
    allow, kind, major, minor, access = rule
    mask = sum(bit for letter, bit in ACCESS.items() if letter in access)
    end = [_instruction(MOVE_CONSTANT, 0, constant=int(allow)), _instruction(EXIT)]
    checks = list(_checks(allow, KINDS.get(kind, 0), major, minor, mask))
    # Each check leaves the block if it does not hold.
    made: list[bytes] = []
    for number, (code, register, source, constant, leaves) in enumerate(checks):
        offset = len(checks) - number - 1 + len(end) if leaves else 0
        made.append(_instruction(code, register, source, offset, constant))
    return made + end


def _checks(allow: bool, kind: int, major: int, minor: int, mask: int) -> Iterator[tuple[int, int, int, int, bool]]:
    if kind:
        yield UNLESS_CONSTANT, 2, 0, kind, True
    if mask != ALL_ACCESS:
        yield MOVE, 1, 3, 0, False
        yield AND, 1, 0, mask, False
        # All that is wanted has to be allowed; any of it that is refused refuses all.
        yield (UNLESS_EQUAL, 1, 3, 0, True) if allow else (IF_CONSTANT, 1, 0, 0, True)
    if major >= 0:
        yield UNLESS_CONSTANT, 4, 0, major, True
    if minor >= 0:
        yield UNLESS_CONSTANT, 5, 0, minor, True


def _instruction(code: int, register: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("=BBhi", code, register | source << 4, offset, constant)


def attach(group: str, devices: Iterable[Json]) -> None:
    """Let a group use these devices only, in place of what it was allowed before. Raises OSError."""
    code = program(rules(devices))
    target = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(target)
        new = _load(code)
        try:
            _bpf(PROG_ATTACH, struct.pack("=IIII", target, new, ATTACH_DEVICE, ALLOW_MULTI))
        finally:
            os.close(new)
        for old in before:
            _detach(target, old)
    finally:
        os.close(target)


def _load(code: bytes) -> int:
    instructions, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQ",
        TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license),
        0,
        0,
        0,
    )
    return _bpf(PROG_LOAD, attributes)


def _attached(target: int) -> list[int]:
    ids = (ctypes.c_uint32 * MOST_PROGRAMS)()
    attributes = ctypes.create_string_buffer(
        struct.pack("=IIIIQI", target, ATTACH_DEVICE, 0, 0, ctypes.addressof(ids), MOST_PROGRAMS), 64
    )
    _bpf(PROG_QUERY, attributes)
    (count,) = struct.unpack_from("=I", attributes.raw, 24)
    return list(ids[:count])


def _detach(target: int, id: int) -> None:
    old = _bpf(PROG_GET_FD_BY_ID, struct.pack("=III", id, 0, 0))
    try:
        _bpf(PROG_DETACH, struct.pack("=IIII", target, old, ATTACH_DEVICE, 0))
    finally:
        os.close(old)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    number = NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"device filters are not known for {os.uname().machine}")
    result = linux.libc().syscall(
        ctypes.c_long(number), ctypes.c_long(command), attributes, ctypes.c_long(len(attributes))
    )
    return linux.checked(result, "bpf")
