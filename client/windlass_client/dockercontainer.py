"""A container as docker's inspect describes it; what the daemon itself says is under ``Containerd``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container as Record
from windlass.errors import InvalidArgument, NotFound
from windlass_client import describe, labels
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import asked as askings
from windlass_client.lifecycle import healthfile, restarts, states
from windlass_client.lifecycle.asked import Asked
from windlass_client.namespace import from_message
from windlass_client.shortnames import familiar
from windlass_client.volumes.usage import Attached, mounts_of
from windlass_oci.payloads import spec_of

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Spec

Document = dict[str, object]
NO_TIME = "0001-01-01T00:00:00Z"
CPU_NANOSECONDS = 1_000_000_000


async def document(client: Client, container: Container) -> Document:
    """Return the description of a container."""
    data, record = DataDirectory.of(client.connection), from_message(container)
    try:
        task = await client.tasks.get(container.id)
    except NotFound:
        task = None
    asked, spec = _asked(record), spec_of(record)
    state = states.of(container, task, data)
    args, mounts = list(spec["process"].get("args") or []), mounts_of(spec, data.volumes)
    return {
        "Id": container.id,
        "Created": container.created_at.ToJsonString(),
        "Path": args[0] if args else "",
        "Args": args[1:],
        "State": _state(container, state, data),
        "Image": familiar(container.image),
        "LogPath": str(data.log(container.id)) if asked.log and asked.log.driver != "none" else "",
        "Name": f"/{asked.name}",
        "RestartCount": int(container.labels.get(restarts.COUNT) or 0),
        "Driver": container.snapshotter,
        "Platform": "linux",
        "Mounts": [each.document() for each in mounts],
        "HostConfig": _host_config(spec, asked, container, mounts),
        "Config": _config(spec, asked, container),
        "NetworkSettings": _network_settings(container, data, state),
        "Containerd": await describe.describe_container(client, container),
    }


def _asked(record: Record) -> Asked:
    try:
        return askings.of(record)
    except InvalidArgument:
        return Asked(record.id, record.labels.get(labels.NAME) or record.id)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else NO_TIME


def _state(container: Container, state: states.State, data: DataDirectory) -> Document:
    health: Mapping[str, object] = {}
    if labels.HEALTH in container.labels:
        health = {"Health": dict(healthfile.read(data, container.id, state.pid))}
    return {
        "Status": state.word,
        "Running": state.word in ("running", "paused"),
        "Paused": state.word == "paused",
        "Restarting": state.word == "restarting",
        "OOMKilled": False,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": "",
        "StartedAt": _moment(state.started),
        "FinishedAt": _moment(state.finished),
        **health,
    }


def _bind(mount: Attached) -> str:
    return f"{mount.name or mount.source}:{mount.destination}" + (":ro" if mount.read_only else "")


def _host_config(spec: Spec, asked: Asked, container: Container, mounts: Sequence[Attached]) -> Document:
    linux = spec["linux"]
    resources = linux.get("resources", {})
    cpu, memory = resources.get("cpu", {}), resources.get("memory", {})
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 100_000
    name, _, count = asked.restart.partition(":")
    networks = _json(container.labels.get(labels.NETWORKS, "{}"))
    return {
        "NetworkMode": next(iter(networks), "") if isinstance(networks, dict) else "",
        "RestartPolicy": {"Name": name or "no", "MaximumRetryCount": int(count or 0)},
        "AutoRemove": asked.remove,
        "LogConfig": {
            "Type": asked.log.driver if asked.log else "",
            "Config": {"max-size": str(asked.log.max_size), "max-file": str(asked.log.max_files)} if asked.log else {},
        },
        "Binds": [_bind(each) for each in mounts if each.kind != "tmpfs"] or None,
        "Tmpfs": {each.destination: ",".join(each.options) for each in mounts if each.kind == "tmpfs"},
        "Memory": memory.get("limit") or 0,
        "MemoryReservation": memory.get("reservation") or 0,
        "MemorySwap": memory.get("swap") or 0,
        "CpuShares": cpu.get("shares") or 0,
        "CpuPeriod": cpu.get("period") or 0,
        "CpuQuota": quota,
        "CpusetCpus": cpu.get("cpus") or "",
        "NanoCpus": quota * CPU_NANOSECONDS // period,
        "PidsLimit": resources.get("pids", {}).get("limit") or 0,
        "ReadonlyRootfs": bool(spec["root"].get("readonly")),
        "Runtime": container.runtime.name,
        "Sysctls": dict(linux.get("sysctl") or {}),
    }


def _test(command: tuple[str, ...]) -> Sequence[str]:
    match command:
        case ("/bin/sh", "-c", line):
            return ["CMD-SHELL", line]
    return ["CMD", *command]


def _config(spec: Spec, asked: Asked, container: Container) -> Document:
    process = spec["process"]
    user = process["user"]
    health: Document = {}
    if asked.health:
        health = {
            "Healthcheck": {
                "Test": _test(asked.health.command),
                "Interval": int(asked.health.interval * 1e9),
                "Timeout": int(asked.health.timeout * 1e9),
                "Retries": asked.health.retries,
            }
        }
    return {
        "Hostname": spec.get("hostname", ""),
        "Domainname": spec.get("domainname", ""),
        "User": f"{user['uid']}:{user['gid']}",
        "Tty": bool(process.get("terminal")),
        "OpenStdin": bool(asked.stdin),
        "StdinOnce": asked.stdin == "once",
        "Env": list(process.get("env") or []),
        "Cmd": list(process.get("args") or []),
        "Image": familiar(container.image),
        "WorkingDir": process.get("cwd", ""),
        "Labels": dict(container.labels),
        **({"StopSignal": asked.stop.signal} if asked.stop.signal else {}),
        **({"StopTimeout": int(asked.stop.timeout)} if asked.stop.timeout is not None else {}),
        **health,
    }


def _network_settings(container: Container, data: DataDirectory, state: states.State) -> Document:
    from windlass_client.networks.published import of_labels

    ports: dict[str, list[Document]] = {}
    for port in of_labels(container.labels):
        address = {"HostIp": port.host_ip or "0.0.0.0", "HostPort": str(port.host_port)}  # noqa: S104 - shown, not bound
        ports.setdefault(f"{port.container_port}/{port.protocol}", []).append(dict(address))
    networks = _networks(data.container(container.id)) if state.pid else {}
    first: Mapping[str, object] = next(iter(networks.values()), {})
    return {"Ports": ports, "IPAddress": first.get("IPAddress", ""), "Networks": networks}


def _networks(directory: Path) -> dict[str, Document]:
    from windlass_client.datadir import host_networks
    from windlass_client.networks.members import Registry

    found = {}
    for member in Registry(host_networks() / "attached").all():
        for name, attached in member.networks.items() if member.directory == str(directory) else ():
            address, _, length = next(iter(attached.addresses), "").partition("/")
            found[name] = {
                "IPAddress": address,
                "IPPrefixLen": int(length or 0),
                "Gateway": next(iter(attached.gateways), ""),
                "MacAddress": attached.mac,
                "Aliases": list(attached.aliases),
            }
    return found


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def sizes(client: Client, container: Container) -> Document:
    """Return the bytes that a container has written, and those of all its files."""
    own = await client.snapshots.usage(container.snapshotter, container.snapshot_key)
    total, name = own.size, container.snapshot_key
    while name := (await client.snapshots.stat(container.snapshotter, name)).parent:
        total += (await client.snapshots.usage(container.snapshotter, name)).size
    return {"SizeRw": own.size, "SizeRootFs": total}
