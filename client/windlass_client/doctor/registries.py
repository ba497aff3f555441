"""Whether the registries that this machine is configured for can be reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from windlass_client.doctor.findings import Area, Finding

DIRECTORIES = (Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))
DEFAULT = "docker.io"
PATIENCE = 5.0
ANSWERS = frozenset({200, 401, 403, 404})
"""Statuses of ``GET /v2/`` that a registry answers with, logged in or not."""


def configured(directories: Sequence[Path] = DIRECTORIES) -> list[str]:
    """Return the registries that have a directory of their own."""
    found = [
        each.name for folder in directories if folder.is_dir() for each in sorted(folder.iterdir()) if each.is_dir()
    ]
    return list(dict.fromkeys(_with_port(name) for name in found if name != "_default"))


def findings(names: Sequence[str], directories: Sequence[Path] = DIRECTORIES) -> Iterator[Finding]:
    """Yield a line for each host that would be asked for images of these registries."""
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda name: list(_registry(name, directories)), names):
            yield from found


def _with_port(name: str) -> str:
    """Return what a directory's name stands for: ``host_5000_`` is ``host:5000``."""
    host, _, port = name.removesuffix("_").rpartition("_")
    return f"{host}:{port}" if name.endswith("_") and host and port.isdigit() else name


def _registry(name: str, directories: Sequence[Path]) -> Iterator[Finding]:
    from windlass.errors import Error
    from windlass_registry import hostsfile
    from windlass_registry.hosts import Host
    from windlass_registry.transport import Transport, Unreachable, Watch

    area = Area("registries")
    found = hostsfile.find(name, directories)
    try:
        found.raise_errors()
    except Error as error:
        yield area.warning(name, str(error), "mend the file; windlass pull --plan shows what is asked")
        return

    def ask(host: Host) -> Finding:
        transport, watch = Transport(), Watch()
        shown = host.base if found.place == "default" else f"{host.base}, by {host.place}"
        try:
            answer = transport.send("GET", f"{host.base}/", {}, host.tls, min(host.dial_timeout, PATIENCE), watch)
        except Unreachable as error:
            remedy = "check name, route, proxy (HTTPS_PROXY) and certificate; hosts.toml can name a mirror"
            return area.warning(name, f"{shown} cannot be reached: {error}", remedy)
        else:
            status = answer.status
            watch.let_go(answer)
        finally:
            transport.close()
        if status not in ANSWERS:
            return area.warning(
                name, f"{shown} answers with status {status}", "see its log; hosts.toml can name a mirror"
            )
        return area.ok(name, shown)

    yield from map(ask, found.hosts)
