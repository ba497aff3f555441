"""What a container of a service is to be, as `windlass run` would be asked for it."""

from __future__ import annotations

from windlass.errors import Unimplemented
from windlass_client.cli import Where
from windlass_client.compose.engine import Wanted
from windlass_client.compose.model import Mount, Port, Service
from windlass_client.datadir import DataDirectory
from windlass_client.networks.options import NetworkOptions
from windlass_client.volumes import options as mounts
from windlass_client.volumes.attach import VolumeOptions


def network_options(wanted: Wanted) -> NetworkOptions:
    """Return what is asked for about networks."""
    service = wanted.service
    return NetworkOptions(
        networks=_networks(wanted),
        ips=tuple(wanted.addresses.values()),
        publish=() if wanted.sharing else tuple(map(published, service.ports)),
        dns=service.dns,
        dns_search=service.dns_search,
        dns_options=service.dns_opt,
        add_hosts=service.extra_hosts,
        network_aliases=[(name, alias) for name, aliases in wanted.networks.items() for alias in aliases],
    )


def _networks(wanted: Wanted) -> tuple[str, ...]:
    if wanted.sharing:
        return (f"container:{wanted.sharing}",)
    mode = wanted.service.network_mode
    return (mode,) if mode else tuple(wanted.networks)


def published(port: Port) -> str:
    """Return a port as `-p` has it."""
    host = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    before = [each for each in (host, port.published) if each]
    if host and not port.published:
        before.append("")
    return f"{':'.join([*before, str(port.target)])}/{port.protocol}"


def volume_options(where: Where, wanted: Wanted) -> VolumeOptions:
    """Return what is asked for about mounts."""
    return VolumeOptions(DataDirectory.of(where), [mounted(each, wanted) for each in wanted.service.mounts])


def mounted(mount: Mount, wanted: Wanted) -> mounts.Wanted:
    """Return a mount as `run` has it, with the name that the volume has outside of the project."""
    if mount.kind == "tmpfs":
        options = [f"size={mount.size}"] if mount.size else []
        options += [f"mode={mount.mode:o}"] if mount.mode else []
        return mounts.Wanted("tmpfs", "", mount.target, mount.read_only, tuple(options))
    if mount.kind == "volume":
        return mounts.Wanted("volume", wanted.volumes.get(mount.source, ""), mount.target, mount.read_only)
    options = [mount.propagation] if mount.propagation else []
    return mounts.Wanted("bind", mount.source, mount.target, mount.read_only, tuple(options), create=mount.create)


def check(service: Service) -> None:
    """Raise Unimplemented for what containers cannot be."""
    if service.group_add:
        raise Unimplemented(f"{service.at}: services.{service.name}.group_add: not supported; name the group in user")
