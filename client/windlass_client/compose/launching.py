"""What a container of a service is to be, as `windlass run` would be asked for it."""

from __future__ import annotations

from windlass_client.cli import Where
from windlass_client.compose.engine import Wanted
from windlass_client.compose.model import Mount, Port, Service
from windlass_client.datadir import DataDirectory
from windlass_client.launch import LaunchOptions
from windlass_client.lifecycle import restarts
from windlass_client.lifecycle.asked import StopOptions
from windlass_client.lifecycle.healthcheck import HealthOptions
from windlass_client.logs.keeping import LogOptions
from windlass_client.networks.options import NetworkOptions
from windlass_client.specparts import SpecParts
from windlass_client.volumes import options as mounts
from windlass_client.volumes.attach import VolumeOptions
from windlass_images import platforms


def launch_options(where: Where, wanted: Wanted) -> LaunchOptions:
    """Return the options of a container that is to be made."""
    service = wanted.service
    arguments = (*(service.entrypoint or ())[1:], *(service.command or ()))
    return LaunchOptions(
        image=service.image,
        id=wanted.name,
        name=wanted.name,
        arguments=arguments,
        entrypoint=None if service.entrypoint is None else "".join(service.entrypoint[:1]),
        env=tuple(f"{key}={value}" for key, value in service.environment.items()),
        labels=wanted.labels,
        user=service.user,
        cwd=service.working_dir,
        hostname=service.hostname,
        memory=service.limits.memory,
        cpus=service.limits.cpus,
        pids=service.limits.pids,
        cap_add=service.cap_add,
        cap_drop=service.cap_drop,
        security=service.security_opt,
        network=network_options(wanted),
        volumes=volume_options(where, wanted),
        read_only=service.read_only,
        terminal=service.terminal,
        stdin=stdin(wanted),
        log=LogOptions(),
        restart=restarts.check(service.restart),
        remove=wanted.remove,
        stop=StopOptions(service.stop_signal, service.stop_grace_period),
        health=service.health or HealthOptions(),
        parts=spec_parts(service),
        runtime=service.runtime,
        platform=platforms.parse(service.platform) if service.platform else platforms.host(),
    )


def stdin(wanted: Wanted) -> str:
    """Return how standard input is kept: one that `compose run` made ends with its client."""
    if wanted.interactive:
        return "once"
    return "open" if wanted.service.stdin else ""


def spec_parts(service: Service) -> SpecParts:
    """Return what changes one part of the spec each."""
    return SpecParts(
        init=service.init,
        privileged=service.privileged,
        devices=service.devices,
        gpus=service.gpus,
        ulimits=tuple(f"{key}={value}" for key, value in service.ulimits.items()),
        sysctls=tuple(f"{key}={value}" for key, value in service.sysctls.items()),
        shm_size=service.shm_size,
        groups=service.group_add,
        domainname=service.domainname,
        oom_score=service.oom_score,
    )


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
