"""Settings of the container's namespaces: /proc/sys, host name, domain name."""

from __future__ import annotations

import os

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def apply(settings: Mapping[str, str]) -> None:
    """Write settings by this process's own /proc, the host's still. Raises OSError, InvalidArgument."""
    for name, value in settings.items():
        _write(name, value)


def _write(name: str, value: str) -> None:
    inside = name if "/" in name else name.replace(".", "/")
    if ".." in inside.split("/"):
        raise InvalidArgument(f"linux.sysctl {name[:80]!r} is not a setting of Linux")
    try:
        descriptor = procfs.open_below("/proc/sys", inside, os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"linux.sysctl {name}={value[:80]}") from None


def set_hostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    text = name.encode()
    linux.checked(linux.libc().sethostname(text, len(text)), f"sethostname: hostname {name[:80]!r}")


def set_domainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    text = name.encode()
    linux.checked(linux.libc().setdomainname(text, len(text)), f"setdomainname: domainname {name[:80]!r}")
