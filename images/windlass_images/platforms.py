"""Which platform this machine is, and which images run on it."""

from __future__ import annotations

import os
import sys

from windlass.errors import InvalidArgument
from windlass.values import Platform

# uname(2) machine to Go's GOARCH and the variant that OCI adds to it
MACHINES = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


def host() -> Platform:
    """Return the platform of this machine."""
    import platform

    machine = platform.machine().lower() if sys.platform == "win32" else os.uname().machine
    architecture, variant = MACHINES.get(machine, (machine, ""))
    return Platform("windows" if sys.platform == "win32" else "linux", architecture, variant)


def parse(text: str) -> Platform:
    """Return the platform that ``os/architecture[/variant]`` means."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidArgument(f"platform {text[:100]!r} is not of the form os/architecture[/variant]")
    architecture, variant = MACHINES.get(parts[1], (parts[1], ""))
    return Platform(parts[0], architecture, parts[2] if len(parts) == 3 else variant)


def write(platform: Platform) -> str:
    """Return a platform as `parse` reads it."""
    parts = (platform.os, platform.architecture, platform.variant)
    return "/".join(part for part in parts if part)


def matches(wanted: Platform, have: Platform | None) -> bool:
    """Tell whether what is made for ``have`` runs on ``wanted``; what says nothing might."""
    if have is None:
        return True
    if (wanted.os, wanted.architecture) != (have.os, have.architecture):
        return False
    default = DEFAULT_VARIANTS.get(wanted.architecture, "")
    return (wanted.variant or default) == (have.variant or default)
