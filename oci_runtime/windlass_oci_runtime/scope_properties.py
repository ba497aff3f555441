"""A scope's properties: what systemd has to know of a container's limits, lest it undoes them when it is reloaded.

The exact values are written to the control groups' files after that: systemd rounds some, and has no word for others.
"""

from __future__ import annotations

import re

from windlass.errors import InvalidArgument
from windlass_oci_runtime.cgroup_v1 import DEFAULT_DEVICES
from windlass_oci_runtime.cgroup_v2 import weight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from windlass_oci_runtime.json_types import Json

    Variant = tuple[str, object]
    """Signature and value, as D-Bus has them."""
    Property = tuple[str, Variant]

INFINITY = (1 << 64) - 1
SECOND = 1_000_000
ROUND = 10_000
"""Microseconds a second: systemd takes shares of processors in percent."""
DEFAULT_PERIOD = 100_000
ANNOTATION = "org.systemd.property."
WORDS = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
}
_NAME = re.compile(r"[A-Za-z]{3,}\Z")
_NUMBER = re.compile(r"-?[0-9]+\Z")
_FRACTION = re.compile(r"-?[0-9]+\.[0-9]*(e-?[0-9]+)?\Z")
_STRING = re.compile(r"'([^'\\]*)'\Z|\"([^\"\\]*)\"\Z")


def of_scope(id: str, slice: str, pid: int, unified: bool) -> Iterator[Property]:
    """Yield what every container's scope has."""
    yield "Description", ("s", f"windlass container {id}")
    yield "Slice", ("s", slice)
    yield "Delegate", ("b", True)
    yield "PIDs", ("au", [pid])
    for name in ("Memory", "CPU", "IO" if unified else "BlockIO", "Tasks"):
        yield f"{name}Accounting", ("b", True)
    yield "DefaultDependencies", ("b", False)


def of_resources(resources: Json, unified: bool) -> Iterator[Property]:
    """Yield the properties of limits; limits that are not given have none."""
    yield from (_of_version_2 if unified else _of_version_1)(resources)
    cpu = resources.get("cpu") or {}
    yield from _quota(cpu.get("quota") or 0, cpu.get("period") or 0)
    for name, title in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
        if unified and cpu.get(name):
            yield title, ("ay", _bits(cpu[name], f"resources.cpu.{name}"))
    limit = (resources.get("pids") or {}).get("limit") or 0
    if limit:
        yield "TasksMax", ("t", limit if limit > 0 else INFINITY)


def _of_version_1(resources: Json) -> Iterator[Property]:
    if limit := (resources.get("memory") or {}).get("limit"):
        yield "MemoryLimit", ("t", limit if limit > 0 else INFINITY)
    if shares := (resources.get("cpu") or {}).get("shares"):
        yield "CPUShares", ("t", shares)
    if block := (resources.get("blockIO") or {}).get("weight"):
        yield "BlockIOWeight", ("t", block)


def _of_version_2(resources: Json) -> Iterator[Property]:
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    for name, title in (("limit", "MemoryMax"), ("reservation", "MemoryLow")):
        if memory.get(name):
            yield title, ("t", memory[name] if memory[name] > 0 else INFINITY)
    if swap := memory.get("swap"):
        yield "MemorySwapMax", ("t", INFINITY if swap < 0 else max(swap - max(memory.get("limit") or 0, 0), 0))
    if cpu.get("shares") and not cpu.get("idle"):
        yield "CPUWeight", ("t", weight(cpu["shares"]))


def _quota(quota: int, period: int) -> Iterator[Property]:
    if period:
        yield "CPUQuotaPeriodUSec", ("t", period)
    if quota:
        share = INFINITY if quota < 0 else -(-quota * SECOND // (period or DEFAULT_PERIOD) // ROUND) * ROUND
        yield "CPUQuotaPerSecUSec", ("t", share)


def _bits(text: str, field: str) -> bytes:
    """Return the numbers of a list such as `0-2,5` as bits, the lowest byte first."""
    found = 0
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            low, high = int(first), int(last or first)
            if not 0 <= low <= high < 1 << 16:
                raise ValueError(part)
            found |= ((1 << (high - low + 1)) - 1) << low
    except ValueError:
        raise InvalidArgument(f"{field} {text[:80]!r} is not a list such as 0-2,5") from None
    return found.to_bytes((found.bit_length() + 7) // 8, "little")


def of_devices(rules: Sequence[Json], groups: Mapping[tuple[str, int], str]) -> Iterator[Property]:
    """Yield which devices systemd leaves to the container; ``groups`` names drivers by kind and major number."""
    allowed: list[tuple[str, int, int, str]] = []
    everything = False
    for rule in rules:
        kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
        major, minor = (rule[name] if rule.get(name) is not None else -1 for name in ("major", "minor"))
        if kind == "a":
            everything, allowed = bool(rule.get("allow")), []
        elif rule.get("allow"):
            allowed.append((kind, major, minor, access))
        else:
            # A part of a wider rule stays here; the filter of the control group refuses it.
            allowed = [each for each in allowed if each[:3] != (kind, major, minor)]
    yield "DevicePolicy", ("s", "auto" if everything else "strict")
    wanted = [] if everything else [*allowed, *(_parsed(text) for text in DEFAULT_DEVICES)]
    named = ((_device(kind, major, minor, groups), access) for kind, major, minor, access in wanted)
    yield "DeviceAllow", ("a(ss)", [each for each in named if each[0]])


def _parsed(text: str) -> tuple[str, int, int, str]:
    kind, numbers, access = text.split()
    major, minor = (-1 if each == "*" else int(each) for each in numbers.split(":"))
    return kind, major, minor, access


def _device(kind: str, major: int, minor: int, groups: Mapping[tuple[str, int], str]) -> str:
    word = "block" if kind == "b" else "char"
    if major < 0:
        return f"{word}-*"  # all minor numbers, too: systemd has no rule for one of every driver
    if minor < 0:
        name = groups.get((word, major), "")
        return f"{word}-{name}" if name else ""
    return f"/dev/{word}/{major}:{minor}"


def device_groups() -> dict[tuple[str, int], str]:
    """Return the names of drivers by kind, `char` or `block`, and major number (/proc/devices)."""
    found: dict[tuple[str, int], str] = {}
    kind = ""
    with open("/proc/devices", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(("Character", "Block")):
                kind = "char" if line.startswith("C") else "block"
            elif line.strip():
                number, _, name = line.strip().partition(" ")
                found.setdefault((kind, int(number)), name)
    return found


def of_annotations(annotations: Mapping[str, str]) -> Iterator[Property]:
    """Yield the properties that annotations `org.systemd.property.NAME` give. Raises InvalidArgument."""
    for key, text in annotations.items():
        if key.startswith(ANNOTATION):
            name = key.removeprefix(ANNOTATION)
            if not _NAME.match(name):
                raise InvalidArgument(f"annotation {key[:80]!r} names no property of systemd")
            try:
                yield _in_microseconds(name, value(text.strip()))
            except ValueError:
                raise InvalidArgument(f"annotation {key[:80]!r}: {text[:80]!r} is not a value of D-Bus") from None


def _in_microseconds(name: str, given: Variant) -> Property:
    if not name.endswith("Sec") or name.endswith("USec"):
        return name, given
    if not isinstance(given[1], int | float) or given[0] == "b" or given[1] < 0:
        raise ValueError(name)
    return f"{name.removesuffix('Sec')}USec", ("t", int(given[1] * SECOND))


def value(text: str) -> Variant:
    """Return what a text such as `true`, `'text'`, `uint32 5` or `['a', 'b']` says. Raises ValueError."""
    if text in ("true", "false"):
        return "b", text == "true"
    if found := _STRING.match(text):
        return "s", found[1] or found[2] or ""
    if text.startswith("[") and text.endswith("]"):
        parts = [value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
        if not parts or len({signature for signature, _ in parts}) != 1 or parts[0][0].startswith("a"):
            raise ValueError(text)
        return f"a{parts[0][0]}", [each for _, each in parts]
    word, _, rest = text.partition(" ")
    signature = WORDS.get(word, "")
    if signature:
        text = rest.strip()
    if signature in ("d", "") and _FRACTION.match(text):
        return "d", float(text)
    if not _NUMBER.match(text):
        raise ValueError(text)
    return (signature, float(text)) if signature == "d" else (signature or "i", int(text))
