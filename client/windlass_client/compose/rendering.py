"""A project as one compose file, which `compose config` prints."""

from __future__ import annotations

import json

import yaml

from windlass_client.compose.images import image_of
from windlass_client.compose.model import (
    Attachment,
    Build,
    Dependency,
    Limits,
    Mount,
    Network,
    Port,
    Project,
    Service,
    Volume,
)
from windlass_client.lifecycle.healthcheck import HealthOptions

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def rendered(project: Project, form: str) -> str:
    """Return a project, or one word a line of it, as text."""
    if form == "yaml":
        return as_yaml(project)
    if form == "json":
        return as_json(project)
    everything = [*project.services.values(), *project.disabled.values()]
    lines = {
        "services": list(project.services),
        "volumes": list(project.volumes),
        "networks": [name for name in project.networks if any(name in each.networks for each in everything)],
        "profiles": sorted({profile for each in everything for profile in each.profiles}),
        "images": [image_of(project, each) for each in project.services.values()],
    }[form]
    return "".join(f"{line}\n" for line in lines)


def as_yaml(project: Project) -> str:
    """Return a project as YAML."""
    return yaml.safe_dump(_escaped(document(project)), sort_keys=False, allow_unicode=True, default_flow_style=False)


def as_json(project: Project) -> str:
    """Return a project as JSON."""
    return json.dumps(_escaped(document(project)), indent=2, ensure_ascii=False) + "\n"


def document(project: Project) -> dict[str, Json]:
    """Return a project as a compose file would say it in long forms."""
    networks = {name for each in project.services.values() for name in each.networks}
    return filled(
        {
            "name": project.name,
            "services": {name: _service(project, project.services[name]) for name in sorted(project.services)},
            "networks": {name: _network(each) for name, each in project.networks.items() if name in networks},
            "volumes": {name: _volume(each) for name, each in project.volumes.items()},
        }
    )


def _escaped(value: Json) -> Json:
    """Return a value whose dollars are no variables when it is read again."""
    if isinstance(value, dict):
        return {key: _escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def filled(fields: dict[str, Json]) -> dict[str, Json]:
    """Return the fields that say something."""
    return {key: value for key, value in fields.items() if value not in (None, "", [], {}, False, 0)}


def _service(project: Project, service: Service) -> Json:
    parts: dict[str, Json] = {
        "image": image_of(project, service),
        "build": _build(service.build),
        "platform": service.platform,
        "pull_policy": service.pull_policy,
        "container_name": service.container_name,
        "profiles": list(service.profiles),
        "depends_on": {name: _dependency(each) for name, each in service.depends_on.items()},
        "restart": "" if service.restart == "no" else service.restart,
        "deploy": _deploy(service),
        "healthcheck": _health(service.health),
        "labels": dict(service.labels),
        "ports": [_port(each) for each in service.ports],
        "volumes": [_mount(each) for each in service.mounts],
    }
    return filled({**parts, **_process(service), **_network_of(service), **_rights(service)})


def _process(service: Service) -> dict[str, Json]:
    return {
        "entrypoint": _words(service.entrypoint),
        "command": _words(service.command),
        "environment": dict(service.environment),
        "user": service.user,
        "group_add": list(service.group_add),
        "working_dir": service.working_dir,
        "init": service.init,
        "runtime": service.runtime,
        "stdin_open": service.stdin,
        "tty": service.terminal,
        "stop_grace_period": "" if service.stop_grace_period == 10 else seconds(service.stop_grace_period),
        "stop_signal": service.stop_signal,
    }


def _network_of(service: Service) -> dict[str, Json]:
    return {
        "network_mode": service.network_mode,
        "networks": {name: _attachment(each) for name, each in service.networks.items()},
        "hostname": service.hostname,
        "domainname": service.domainname,
        "dns": list(service.dns),
        "dns_opt": list(service.dns_opt),
        "dns_search": list(service.dns_search),
        "extra_hosts": list(service.extra_hosts),
    }


def _rights(service: Service) -> dict[str, Json]:
    return {
        "cap_add": list(service.cap_add),
        "cap_drop": list(service.cap_drop),
        "privileged": service.privileged,
        "devices": list(service.devices),
        "gpus": service.gpus,
        "sysctls": dict(service.sysctls),
        "ulimits": {name: _ulimit(each) for name, each in service.ulimits.items()},
        "shm_size": str(service.shm_size or ""),
        "oom_score_adj": service.oom_score,
        "read_only": service.read_only,
        "security_opt": list(service.security_opt),
    }


def _ulimit(text: str) -> Json:
    soft, _, hard = text.partition(":")
    return {"soft": int(soft), "hard": int(hard)} if hard else int(soft)


def _deploy(service: Service) -> Json:
    limits = _limits(service.limits)
    replicas = service.replicas if service.replicas != 1 else None
    return filled({"replicas": replicas, "resources": {"limits": limits} if limits else None})


def _dependency(each: Dependency) -> Json:
    return {"condition": each.condition, **filled({"restart": each.restart}), "required": each.required}


def _words(words: tuple[str, ...] | None) -> Json:
    return None if words is None else list(words)


def _build(build: Build | None) -> Json:
    if build is None:
        return None
    arguments: dict[str, Json] = dict(build.arguments)
    return filled({"context": build.context, "dockerfile": build.dockerfile, "target": build.target, "args": arguments})


def _attachment(each: Attachment) -> Json:
    return filled({"aliases": list(each.aliases), "ipv4_address": each.ipv4}) or None


def _port(port: Port) -> Json:
    return filled(
        {
            "target": port.target,
            "published": port.published,
            "host_ip": port.host_ip,
            "protocol": port.protocol,
        }
    )


def _mount(mount: Mount) -> Json:
    bind: Json = {**filled({"propagation": mount.propagation}), "create_host_path": mount.create}
    memory = filled({"size": mount.size, "mode": f"{mount.mode:o}" if mount.mode else ""})
    return filled(
        {
            "type": mount.kind,
            "source": mount.source,
            "target": mount.target,
            "read_only": mount.read_only,
            "bind": bind if mount.kind == "bind" else None,
            "tmpfs": memory,
        }
    )


def _limits(limits: Limits) -> dict[str, Json]:
    cpus = f"{limits.cpus:g}" if limits.cpus else ""
    return filled({"cpus": cpus, "memory": str(limits.memory or ""), "pids": limits.pids})


def _health(health: HealthOptions | None) -> Json:
    if health is None:
        return None
    return filled(
        {
            "test": list(health.test),
            "interval": seconds(health.interval),
            "timeout": seconds(health.timeout),
            "retries": health.retries,
            "start_period": seconds(health.start_period),
            "start_interval": seconds(health.start_interval),
        }
    )


def seconds(count: float) -> str:
    """Return a duration as compose files have it, empty if it is none."""
    return f"{count:g}s" if count else ""


def _network(network: Network) -> Json:
    pools: list[Json] = [{"subnet": each} for each in network.subnets]
    if pools and network.gateway:
        pools[0] = {"subnet": network.subnets[0], "gateway": network.gateway}
    return filled(
        {
            "name": network.name,
            "external": network.external,
            "driver": network.driver,
            "driver_opts": dict(network.options),
            "internal": network.internal,
            "ipam": {"config": pools} if pools else None,
            "labels": dict(network.labels),
        }
    )


def _volume(volume: Volume) -> Json:
    return filled(
        {
            "name": volume.name,
            "external": volume.external,
            "driver": volume.driver,
            "driver_opts": dict(volume.options),
            "labels": dict(volume.labels),
        }
    )
