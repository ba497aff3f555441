"""A container as docker's inspect describes it, from its record, its spec, its task and its files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from windlass.errors import Error, NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory
from windlass_client.inspection import networking
from windlass_client.lifecycle import asked, healthfile, restarts, states
from windlass_client.lifecycle.asked import Asked
from windlass_client.namespace import from_message
from windlass_client.volumes import usage
from windlass_oci.payloads import read_spec

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_api.containerd.v1.types.task_pb2 import Process
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Spec

Document = dict[str, object]

NEVER = "0001-01-01T00:00:00Z"
OURS = ("io.windlass.", "windlass.client/", "containerd.io/", "io.containerd.", "nerdctl/")


async def document(client: Client, container: Container, size: bool = False) -> Document:
    """Return the description of a container. Raises InvalidArgument for a spec that is none."""
    spec = read_spec(container.id, container.spec.value)
    data = DataDirectory.of(client.connection)
    state = states.of(container, await _task(client, container.id), data)
    mounts = usage.mounts_of(spec, data.volumes)
    wanted = asked.of(from_message(container))
    args = list(spec["process"].get("args") or [])
    sizes = await _sizes(client, container) if size else {}
    return {
        "Id": container.id,
        "Created": container.created_at.ToJsonString(),
        "Path": args[0] if args else "",
        "Args": args[1:],
        "State": _state(container, state, data),
        "Image": await _image_id(client, container),
        "ResolvConfPath": _file(data, container.id, "resolv.conf"),
        "HostnamePath": _file(data, container.id, "hostname"),
        "HostsPath": _file(data, container.id, "hosts"),
        "LogPath": str(data.log(container.id)) if wanted.log else "",
        "Name": f"/{lookup.name_of(container)}",
        "RestartCount": int(container.labels.get(restarts.COUNT) or 0),
        "Driver": container.snapshotter,
        "Platform": "linux",
        "Runtime": container.runtime.name,
        "Mounts": [each.document() for each in mounts],
        "Config": _config(container, spec, wanted),
        "HostConfig": _host_config(spec, wanted, mounts, networking.port_bindings(container), container),
        "NetworkSettings": networking.settings(container, data, state.pid),
        **sizes,
    }


async def _task(client: Client, id: str) -> Process | None:
    try:
        return await client.tasks.get(id)
    except NotFound:
        return None


async def _sizes(client: Client, container: Container) -> Document:
    own = await client.snapshots.usage(container.snapshotter, container.snapshot_key)
    total, name = own.size, container.snapshot_key
    while name := (await client.snapshots.stat(container.snapshotter, name)).parent:
        total += (await client.snapshots.usage(container.snapshotter, name)).size
    return {"SizeRw": own.size, "SizeRootFs": total}


async def _image_id(client: Client, container: Container) -> str:
    from windlass_client.imagerows import identified

    try:
        return await identified(client, await client.images.get(container.image))
    except Error:
        return ""  # it has been removed since


def _file(data: DataDirectory, id: str, name: str) -> str:
    path = data.container(id) / name
    return str(path) if path.exists() else ""


def moment(seconds: float) -> str:
    """Return a time as docker writes it, which has one for never."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if seconds else NEVER


def _state(container: Container, state: states.State, data: DataDirectory) -> Document:
    found: Document = {
        "Status": state.word,
        "Running": state.word in ("running", "paused"),
        "Paused": state.word == "paused",
        "Restarting": state.word == "restarting",
        "OOMKilled": False,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": "",
        "StartedAt": moment(state.started),
        "FinishedAt": moment(state.finished),
    }
    if state.health:
        found["Health"] = dict(healthfile.read(data, container.id, state.pid))
    return found


def labels_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that users gave, without those that programs keep their notes in."""
    return {key: value for key, value in labels.items() if not key.startswith(OURS)}


def _config(container: Container, spec: Spec, wanted: Asked) -> Document:
    process = spec["process"]
    user = process.get("user") or {"uid": 0, "gid": 0}
    found: Document = {
        "Hostname": spec.get("hostname", ""),
        "Domainname": spec.get("domainname", ""),
        "User": "" if not user["uid"] and not user["gid"] else f"{user['uid']}:{user['gid']}",
        "AttachStdin": bool(wanted.stdin),
        "Tty": bool(process.get("terminal")),
        "OpenStdin": bool(wanted.stdin),
        "StdinOnce": wanted.stdin == "once",
        "Env": list(process.get("env") or []),
        "Cmd": list(process.get("args") or []),
        "Image": container.image,
        "WorkingDir": process.get("cwd", ""),
        "Entrypoint": None,
        "Labels": labels_of(container.labels),
        "StopSignal": wanted.stop.signal or "SIGTERM",
    }
    if wanted.health is not None:
        check = wanted.health
        found["Healthcheck"] = {
            "Test": list(check.command),
            "Interval": int(check.interval * 1e9),
            "Timeout": int(check.timeout * 1e9),
            "StartPeriod": int(check.start_period * 1e9),
            "Retries": check.retries,
        }
    return found


def _host_config(
    spec: Spec, wanted: Asked, mounts: list[usage.Attached], bindings: Document, container: Container
) -> Document:
    linux = spec["linux"]
    resources = linux.get("resources") or {}
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    name, _, times = wanted.restart.partition(":")
    period = cpu.get("period", 0)
    return {
        "Binds": [_bind(each) for each in mounts if each.kind != "tmpfs"] or None,
        "LogConfig": {"Type": "json-file" if wanted.log else "none", "Config": {}},
        "NetworkMode": networking.mode(container, spec),
        "PortBindings": bindings,
        "RestartPolicy": {"Name": name or "no", "MaximumRetryCount": int(times) if times.isdigit() else 0},
        "AutoRemove": wanted.remove,
        "ReadonlyRootfs": bool(spec["root"].get("readonly")),
        "Memory": memory.get("limit", 0),
        "MemoryReservation": memory.get("reservation", 0),
        "MemorySwap": memory.get("swap", 0),
        "NanoCpus": int(cpu.get("quota", 0) / period * 1e9) if period and cpu.get("quota", 0) > 0 else 0,
        "CpuShares": cpu.get("shares", 0),
        "CpuPeriod": period,
        "CpuQuota": cpu.get("quota", 0),
        "CpusetCpus": cpu.get("cpus", ""),
        "PidsLimit": (resources.get("pids") or {"limit": 0})["limit"] or None,
        "Tmpfs": {each.destination: ",".join(each.options) for each in mounts if each.kind == "tmpfs"},
        "Runtime": container.runtime.name,
        "MaskedPaths": linux.get("maskedPaths") or [],
        "ReadonlyPaths": linux.get("readonlyPaths") or [],
        "CgroupParent": linux.get("cgroupsPath", "").rpartition("/")[0],
    }


def _bind(mount: usage.Attached) -> str:
    return f"{mount.name or mount.source}:{mount.destination}" + (":ro" if mount.read_only else "")
