"""Which platform this machine is, which images run on it, and which of them run best (as containerd decides it)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from windlass.contracts.values import Platform
from windlass.errors import InvalidArgument

Wanted = Platform | tuple[Platform, ...] | None
"""A platform, several in order of preference, or None for all that there are."""

# uname(2) machine, and what people write, to Go's GOARCH and the variant that is meant
MACHINES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
# the variants that are meant by saying nothing
IMPLIED = {"arm64": "v8", "arm": "v7", "amd64": "v1"}
SYSTEMS = frozenset({"android", "darwin", "freebsd", "illumos", "linux", "netbsd", "openbsd", "solaris", "windows"})
ARCHITECTURES = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}
)

SYSTEM = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?")
PART = re.compile(r"[A-Za-z0-9_.-]+")
BUILD = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,5})(?:\..*)?", re.DOTALL)
STABLE_BUILD = 20348
"""Windows Server 2022: from here on a host runs what was built for any build between this one and its own."""

REMEMBERED = 128
"""Characters of a platform; what runs on a longer one, whose words clients and images choose, is found each time."""

T = TypeVar("T")

# What a processor has to have for each level of amd64 (System V ABI, x86-64 psABI, "Micro-Architecture Levels").
LEVELS = (
    frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    frozenset({"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)


def level(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """Return the level of amd64 that this machine's processor has, 1 where that is not known."""
    try:
        with cpuinfo.open() as lines:
            flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return 1
    missing = (number for number, needed in enumerate(LEVELS, 1) if not needed <= flags)
    return next(missing, len(LEVELS) + 1)


_level = lru_cache(maxsize=1)(level)


def of(said: Platform | None, own: Platform) -> Platform | None:
    """Return an image's platform: its index's entry, else its own; None without either."""
    return _stated(said) or _stated(own)


def _stated(platform: Platform | None) -> Platform | None:
    """Return a platform that says something: one without an architecture does not."""
    return platform if platform is not None and platform.architecture else None


def host() -> Platform:
    """Return the platform of this machine."""
    import platform

    if sys.platform == "win32":
        return normal(Platform("windows", platform.machine(), os_version=platform.version()))
    return normal(Platform("linux", os.uname().machine))


def parse(text: str) -> Platform:
    """Return the platform that ``os[(version[+feature…])]/architecture[/variant]``, or a known half of it, means."""
    system, *parts = text.split("/")
    found = SYSTEM.fullmatch(system)
    if not found or len(parts) > 2 or not all(map(PART.fullmatch, parts)):
        raise _not_a_platform(text)
    name, version, features = (unquote(group or "") for group in found.groups())
    listed = tuple(unquote(feature) for feature in (found[3] or "").split("+")[1:])
    if parts:
        variant = parts[1] if len(parts) == 2 else ""
        return normal(Platform(name, parts[0], variant, version, listed))
    mine = host()
    whole = normal(Platform(name, mine.architecture, mine.variant, version, listed))
    if whole.os in SYSTEMS:
        return whole
    machine = normal(Platform(mine.os, name))
    if version or features or machine.architecture not in ARCHITECTURES:
        raise _not_a_platform(text)
    return machine


def _not_a_platform(text: str) -> InvalidArgument:
    return InvalidArgument(f"platform {text[:100]!r} is not of the form os[(version)]/architecture[/variant]")


def write(platform: Platform) -> str:
    """Return a platform as `parse` reads it."""
    options = "".join("+" + quote(feature, safe="") for feature in sorted(platform.os_features))
    options = quote(platform.os_version, safe="") + options
    system = platform.os + (f"({options})" if options else "")
    return "/".join(part for part in (system, platform.architecture, platform.variant) if part)


def write_all(wanted: Wanted) -> str:
    """Return the wanted platforms for a sentence."""
    listed = (wanted,) if isinstance(wanted, Platform) else wanted or ()
    return ", ".join(map(write, listed)) or "any platform"


def normal(platform: Platform) -> Platform:
    """Return a platform in the words that images use; a variant that goes without saying is left out, but for arm."""
    system = platform.os.lower()
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in MACHINES:
        architecture, implied = MACHINES[architecture]
        variant = variant or implied
    if architecture in ("arm", "arm64") and variant.isdecimal():
        variant = f"v{variant}"
    if architecture == "386" or (variant == IMPLIED.get(architecture) and architecture != "arm"):
        variant = ""
    if architecture == "arm":
        variant = variant or IMPLIED["arm"]
    features = tuple(sorted(set(platform.os_features)))
    return Platform("darwin" if system == "macos" else system, architecture, variant, platform.os_version, features)


def runs(platform: Platform) -> tuple[Platform, ...]:
    """Return the platforms whose programs run on one, the best first: itself, then its lesser variants.

    amd64 without a level selects an image for any processor, or else one for this machine's.
    """
    parts = (platform.os, platform.architecture, platform.variant, platform.os_version, *platform.os_features)
    short = sum(len(part) + 1 for part in parts) <= REMEMBERED
    return (_runs_short if short else _runs)(platform, _level() if host().architecture == "amd64" else 1)


def _runs(platform: Platform, most: int) -> tuple[Platform, ...]:
    mine = normal(platform)
    own = (mine.architecture, mine.variant)
    levels = [("amd64", f"v{number}") for number in range(2, most + 1)] if own == ("amd64", "") else []
    pairs = [own, *levels, *_lesser(*own)]
    found = (normal(replace(mine, architecture=architecture, variant=variant)) for architecture, variant in pairs)
    return tuple(dict.fromkeys(found))


_runs_short = lru_cache(maxsize=256)(_runs)


def _lesser(architecture: str, variant: str) -> Iterator[tuple[str, str]]:
    major, _, minor = (variant or IMPLIED.get(architecture, "")).removeprefix("v").partition(".")
    level, step = (int(part) if part.isdecimal() and len(part) < 3 else 0 for part in (major, minor))
    if architecture == "amd64":
        yield from (("amd64", f"v{lower}") for lower in range(level - 1, 0, -1))
        yield "386", ""
    elif architecture == "arm":
        yield from (("arm", f"v{lower}") for lower in range(level - 1, 4, -1))
    elif architecture == "arm64":
        if level == 9:
            yield from (("arm64", _version(9, lower)) for lower in range(step - 1, -1, -1))
            level, step = 8, step + 6  # v9.0 grew from v8.5
        if level == 8:
            yield from (("arm64", _version(8, lower)) for lower in range(step - 1, -1, -1))
        yield from (("arm", f"v{lower}") for lower in range(8, 4, -1))


def _version(major: int, minor: int) -> str:
    return f"v{major}.{minor}" if minor else f"v{major}"


def same(wanted: Platform, have: Platform) -> bool:
    """Return whether ``have`` is ``wanted`` and not merely runs on it; of the operating system a fitting version."""
    mine, other = normal(wanted), normal(have)
    return (
        (mine.os, mine.architecture, mine.variant) == (other.os or host().os, other.architecture, other.variant)
        and set(other.os_features) <= set(mine.os_features)
        and (mine.os != "windows" or _build_fits(mine.os_version, other.os_version))
    )


def _build_fits(mine: str, other: str) -> bool:
    """Return whether a Windows host runs what was built for a version; an image without a version fits every host."""
    host_version, version = BUILD.fullmatch(mine), BUILD.fullmatch(other)
    if not host_version or not other:
        return True
    if not version or host_version.groups()[:2] != version.groups()[:2]:
        return False
    build, wanted = int(host_version[3]), int(version[3])
    return build == wanted if build < STABLE_BUILD else STABLE_BUILD <= wanted <= build


def rank(wanted: Wanted, have: Platform | None) -> int | None:
    """Return how well an image for ``have`` suits: 0 is best, None not at all; one without a platform comes last."""
    if wanted is None:
        return 0
    choices = (wanted,) if isinstance(wanted, Platform) else wanted
    order = [each for choice in choices for each in runs(choice)]
    if _stated(have) is None:
        return len(order)
    return next((number for number, each in enumerate(order) if have and same(each, have)), None)


def matches(wanted: Wanted, have: Platform | None) -> bool:
    """Return whether an image for ``have`` runs on ``wanted``; an image without a platform might."""
    return rank(wanted, have) is not None


def best(wanted: Wanted, choices: Sequence[T], platform_of: Callable[[T], Platform | None]) -> list[T]:
    """Return, for each wanted platform, the choices that suit it best, and those that name no platform.

    What an amd64 machine could run of a 386 image does not count where there is one for amd64. On
    Windows the newest build comes first.
    """
    if wanted is None:
        return list(choices)
    stated = [_stated(platform_of(choice)) for choice in choices]
    found: dict[int, T] = {}
    for platform in (wanted,) if isinstance(wanted, Platform) else wanted:
        ranked = [(rank(platform, have), number) for number, have in enumerate(stated)]
        known = sorted(
            (place, _newest(stated[number]), number)
            for place, number in ranked
            if place is not None and stated[number] is not None
        )
        found |= {number: choices[number] for place, _, number in known if place == known[0][0]}
    found |= {number: choice for number, choice in enumerate(choices) if stated[number] is None}
    return list(found.values())


def _newest(platform: Platform | None) -> int:
    version = BUILD.fullmatch(platform.os_version) if platform else None
    return -int(version[3]) if version else 0
