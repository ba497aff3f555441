"""Removes networks of ours: the file, the bridge, and what plugins leave of a bridge in iptables."""

from __future__ import annotations

import fcntl
import shlex
import shutil
import socket
import struct
import subprocess
from contextlib import closing, suppress
from pathlib import Path

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_client import datadir
from windlass_client.networks import attach, settings
from windlass_client.networks.catalog import Catalog, Found
from windlass_client.networks.create import locked
from windlass_client.networks.members import DEFAULT, Registry
from windlass_client.networks.views import View

SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCBRDELBR, IFF_UP = 0x8913, 0x8914, 0x89A1, 1
"""netdevice(7), and linux/sockios.h."""
_IFREQ = struct.Struct("16sh22x")
CHAINS = ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")
"""Where the plugin firewall keeps a bridge apart, for as long as the host is up."""
PATIENCE = 30


def remove(catalog: Catalog, registry: Registry, view: View) -> None:
    """Remove a network of ours that no container is attached to.

    Raises InvalidArgument for a network that is not ours, FailedPrecondition for one that is in use.
    """
    found = view.found
    if found is None or view.name == DEFAULT:
        raise InvalidArgument(f"network {view.name} is always there; it cannot be removed")
    if not found.ours:
        raise InvalidArgument(f"network {view.name} is not ours; remove {found.path} if nothing else needs it")
    with locked(catalog):
        # What has ended without its hook is detached while the network's plugins are known.
        for member in registry.all():
            if view.name in member.networks:
                if member.alive:
                    raise FailedPrecondition(
                        f"network {view.name} is in use by container {member.name}; stop or disconnect it first"
                    )
                attach.collect(registry, member)
        _remove_files(found)
    shutil.rmtree(datadir.host_networks() / "leases" / view.name, ignore_errors=True)


def remove_all(catalog: Catalog) -> None:
    """Remove all networks of ours, the default one too, and their directory: nothing may be attached any more."""
    for found in catalog.all()[0]:
        if found.ours:
            _remove_files(found)
    shutil.rmtree(catalog.own, ignore_errors=True)


def _remove_files(found: Found) -> None:
    found.path.unlink(missing_ok=True)
    for plugin in found.network.plugins:
        if plugin.type == "bridge" and isinstance(name := plugin.conf.get("bridge"), str):
            _remove_bridge(name)


def _remove_bridge(name: str) -> None:
    """Remove a bridge; one that is not there, or has ports of others, stays as it is."""
    packed = name.encode()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control, suppress(OSError):
        flags = _IFREQ.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, _IFREQ.pack(packed, 0)))[1]
        if any(Path(f"/sys/class/net/{name}/brif").glob("*")):
            return
        fcntl.ioctl(control, SIOCSIFFLAGS, _IFREQ.pack(packed, flags & ~IFF_UP))
        fcntl.ioctl(control, SIOCBRDELBR, _IFREQ.pack(packed, 0))
    for program in ("iptables", "ip6tables"):
        if found := shutil.which(program, path=settings.PATH):
            for chain in CHAINS:
                _remove_rules(found, chain, name)


def _remove_rules(program: str, chain: str, bridge: str) -> None:
    for rule in _iptables(program, "-S", chain).splitlines():
        words = shlex.split(rule)
        if words[:1] == ["-A"] and bridge in words:
            _iptables(program, "-D", *words[1:])


def _iptables(program: str, *arguments: str) -> str:
    done = subprocess.run([program, "-w", "5", *arguments], capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout if done.returncode == 0 else ""
