"""What containers' networks need: CNI plugins, their configurations, forwarding and bridges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from windlass_client.doctor.findings import Area, Finding
from windlass_client.doctor.linux import HERE, Machine

CONFIGURATIONS = Path("/etc/cni/net.d")
PLUGINS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
WANTED = ("bridge", "host-local", "loopback", "portmap", "firewall")
SUFFIXES = (".conflist", ".conf", ".json")
INSTALL = "apt-get install containernetworking-plugins"


def findings(
    machine: Machine = HERE, configurations: Path = CONFIGURATIONS, plugins: Sequence[Path] = PLUGINS
) -> Iterator[Finding]:
    """Yield what there is to say about networks."""
    area = Area("network")
    programs = {each.name: each for folder in reversed(plugins) if folder.is_dir() for each in folder.iterdir()}
    shown = " and ".join(map(str, plugins))
    if not programs:
        yield area.warning("CNI plugins", f"none in {shown}: containers have no network of their own", INSTALL)
    else:
        missing = [name for name in WANTED if name not in programs]
        if missing:
            yield area.warning("CNI plugins", f"{', '.join(missing)} not in {shown}", INSTALL)
        else:
            yield area.ok("CNI plugins", " ".join(WANTED))
    yield from _networks(area, configurations, set(programs))
    if machine.read(machine.proc / "sys/net/ipv4/ip_forward") == "0":
        remedy = "sysctl -w net.ipv4.ip_forward=1"
        yield area.note("forwarding", "is off; the CNI plugin bridge turns it on for IPv4", remedy)
    if not (machine.proc / "sys/net/ipv6").exists():
        yield area.note("IPv6", "Linux has none here: networks with IPv6 fail")


def _networks(area: Area, directory: Path, programs: set[str]) -> Iterator[Finding]:
    files = sorted(each for each in directory.glob("*") if each.name.endswith(SUFFIXES)) if directory.is_dir() else []
    if not files:
        detail = f"no configuration in {directory}: the kubelet's pods get no network; windlass run has its own bridge"
        yield area.note("networks", detail, "put a .conflist there if this machine is a node")
    for file in files:
        yield _network(area, file, programs)


def _network(area: Area, file: Path, programs: set[str]) -> Finding:
    try:
        types = _types(json.loads(file.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return area.warning(file.name, f"cannot be read: {reason}", f"mend {file}")
    if not types:
        return area.warning(file.name, "names no plugin", f'give {file} a list "plugins" of objects with a "type"')
    missing = [name for name in types if name not in programs]
    if missing:
        return area.warning(file.name, f"needs {', '.join(missing)}, not installed", f"{INSTALL}, or remove {file}")
    return area.ok(file.name, " ".join(types))


def _types(document: object) -> list[str]:
    """Return the plugins that a configuration names."""
    if not isinstance(document, dict):
        return []
    plugins = document.get("plugins", [document])
    found = [each.get("type") for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []
    return [each for each in found if isinstance(each, str)]
