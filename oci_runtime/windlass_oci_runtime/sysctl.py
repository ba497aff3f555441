"""Settings of the container's namespaces: /proc/sys, host name, domain name."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROC = 0x9FA0
"""The magic number of procfs, statfs(2)."""


def apply(settings: Mapping[str, str]) -> None:
    """Write settings by this process's own /proc, the host's still. Raises OSError, InvalidArgument."""
    for name, value in settings.items():
        _write(name, value)


def _write(name: str, value: str) -> None:
    inside = name if "/" in name else name.replace(".", "/")
    if ".." in inside.split("/"):
        raise InvalidArgument(f"sysctl {name[:80]!r} is not a setting of Linux")
    base = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if linux.statfs_type(f"/proc/self/fd/{base}") != PROC:
            raise InvalidArgument("/proc is not a procfs")
        resolve = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV
        descriptor = linux.openat2(base, inside, os.O_WRONLY, resolve=resolve)
        try:
            os.write(descriptor, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"sysctl {name}={value[:80]}") from None
        finally:
            os.close(descriptor)
    finally:
        os.close(base)


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    text = name.encode()
    linux.checked(linux.libc().sethostname(text, len(text)), "sethostname")


def set_domainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    text = name.encode()
    linux.checked(linux.libc().setdomainname(text, len(text)), "setdomainname")
