"""`info`: the daemon, what is in its namespace, and the machine."""

from __future__ import annotations

import asyncio
import os
import platform
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from windlass import __version__
from windlass.errors import Error
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import states
from windlass_client.namespaces import RUNTIME, SNAPSHOTTER
from windlass_linux.cgroups import hierarchies

if TYPE_CHECKING:
    from windlass_client.client import Client

Document = dict[str, object]

LINES = (
    ("Containers", "Containers"),
    ("ContainersRunning", " Running"),
    ("ContainersPaused", " Paused"),
    ("ContainersStopped", " Stopped"),
    ("Images", "Images"),
    ("ServerVersion", "Server Version"),
    ("Driver", "Storage Driver"),
    ("LoggingDriver", "Logging Driver"),
    ("CgroupVersion", "Cgroup Version"),
    ("DefaultRuntime", "Default Runtime"),
    ("KernelVersion", "Kernel Version"),
    ("OperatingSystem", "Operating System"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("NCPU", "CPUs"),
    ("MemTotal", "Total Memory"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("Namespace", "Namespace"),
    ("Address", "Address"),
    ("ClientDataDir", "Client Data Dir"),
)


async def document(client: Client) -> Document:
    """Return what is known, under docker's names where docker has one."""
    version, server, containers, tasks, images = await asyncio.gather(
        client.version(), _uuid(client), client.containers.list(), client.tasks.list(), client.images.list()
    )
    data = DataDirectory.of(client.connection)
    known = {each.id or each.container_id: each for each in tasks}
    words = Counter(states.of(each, known.get(each.id), data).word for each in containers)
    running, paused = words["running"] + words["restarting"], words["paused"]
    plugins = await client.introspection.plugins()
    failed = sorted(f"{each.type}.{each.id}: {each.init_err.message}" for each in plugins if _is_broken(each))
    return {
        "ID": server,
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(containers) - running - paused,
        "Images": len({image.target.digest for image in images}),
        "ServerVersion": version.version,
        "ServerRevision": version.revision,
        "ClientVersion": __version__,
        "Driver": await client.namespaces.default(SNAPSHOTTER),
        "LoggingDriver": "json-file",
        "CgroupVersion": _cgroup_version(),
        "DefaultRuntime": await client.namespaces.default(RUNTIME),
        "KernelVersion": platform.release(),
        "OperatingSystem": _system(),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "Name": platform.node(),
        "Namespace": client.namespace,
        "Address": client.connection.address,
        "ClientDataDir": str(data.path),
        "Warnings": [f"plugin {each}" for each in failed],
    }


async def _uuid(client: Client) -> str:
    try:
        return (await client.introspection.server()).uuid
    except Error:
        return ""


def _is_broken(plugin: object) -> bool:
    """Return whether a plugin has failed, rather than having been skipped because the machine lacks something."""
    message = getattr(getattr(plugin, "init_err", None), "message", "")
    return bool(message) and not message.endswith("skip plugin")


def _cgroup_version() -> str:
    kinds = {kind for _, kind, _ in hierarchies()}
    return "2" if kinds == {"cgroup2"} else "1"


def _system() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return platform.system()
    names = dict(line.partition("=")[::2] for line in lines)
    return names.get("PRETTY_NAME", platform.system()).strip('"')


def lines(found: Document) -> list[str]:
    """Return the document as text."""
    from windlass_client.stats.rows import binary

    shown = {**found, "MemTotal": binary(float(str(found["MemTotal"])))}
    text = ["Client:", f" Version: {found['ClientVersion']}", "", "Server:"]
    text += [f" {title}: {shown[key]}" for key, title in LINES]
    warnings = found["Warnings"]
    return text + [f"WARNING: {each}" for each in (warnings if isinstance(warnings, list) else [])]
