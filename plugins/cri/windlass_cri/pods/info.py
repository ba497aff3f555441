"""What a verbose status says beyond the API: JSON for people, with the keys that containerd has (cri-facts 11, 12)."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass

from google.protobuf.message import Message

from windlass.errors import NotFound
from windlass_cni.config import Json, Object
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.containers.info import plain
from windlass_cri.record import Pod
from windlass_cri.runtime import CriRuntime

_EMPTY: dict[str, Json] = {
    "pid": 0,
    "processStatus": "",
    "netNamespaceClosed": False,
    "image": "",
    "snapshotKey": "",
    "snapshotter": "",
    "runtimeHandler": "",
    "runtimeType": "",
    "runtimeOptions": None,
    "config": None,
    "runtimeSpec": None,
    "cniResult": None,
    "sandboxMetadata": None,
}

NOTHING = json.dumps(_EMPTY)
"""What a status has that is not verbose."""


async def pod_info(runtime: CriRuntime, pod: Pod) -> str:
    """Describe a pod; there is an image, a snapshot and a spec only of a pod that a container holds."""
    chosen = runtime.handlers.runtimes.get(
        pod.data.handler or runtime.config.containerd.default_runtime_name, Runtime("")
    )
    closed = bool(pod.data.netns) and not await runtime.network.is_there(pod.data.netns)
    config = _document(pod.config)
    info = _EMPTY | {
        "pid": pod.pid,
        "processStatus": "running" if pod.ready else "deleted",
        "netNamespaceClosed": closed,
        "runtimeHandler": pod.data.handler,
        "runtimeType": chosen.runtime_type,
        "runtimeOptions": _jsonable(chosen.options) or None,
        "config": config,
        "cniResult": {"Results": list(await runtime.network.results(pod.id))},
        "sandboxMetadata": {
            "Version": "v1",
            "Metadata": {
                "ID": pod.id,
                "Name": pod.data.name,
                "Config": config,
                "NetNSPath": pod.data.netns,
                "IP": pod.data.addresses[0] if pod.data.addresses else "",
                "AdditionalIPs": list(pod.data.addresses[1:]),
                "RuntimeHandler": pod.data.handler,
            },
        },
    }
    with suppress(NotFound):
        row = await runtime.containers.namespace.containers.get(pod.id)
        info |= {"image": row.image, "snapshotKey": row.snapshot_key, "snapshotter": row.snapshotter}
        info["runtimeSpec"] = json.loads(row.spec.value) if row.spec else None
    for key in ("overhead", "resources"):
        if pod.config.linux.HasField(key):
            info[key] = {"linux": _document(getattr(pod.config.linux, key))}
    return json.dumps(info)


def status_info(runtime: CriRuntime, problem: str) -> Mapping[str, str]:
    """Describe the runtime: its configuration, its networks, and why these cannot be used."""
    networks = [{"Config": {"Name": each.name, "Source": each.source}} for each in runtime.network.networks]
    return {
        "config": json.dumps(
            _jsonable({each.name: getattr(runtime.config, each.name) for each in fields(RuntimeConfig)})
        ),
        "python": json.dumps(platform.python_version()),
        "cniconfig": json.dumps({"Networks": networks}),
        "lastCNILoadStatus": problem or "OK",
        "lastCNILoadStatus.default": problem or "OK",
    }


def _document(message: Message) -> Object:
    made: Object = json.loads(json.dumps(plain(message)))
    return made


def _jsonable(value: object) -> Json:
    """Return a value of a configuration with nothing in it that JSON has not."""

    def converted(part: object) -> object:
        return asdict(part) if is_dataclass(part) and not isinstance(part, type) else str(part)

    made: Json = json.loads(json.dumps(value, default=converted))
    return made
