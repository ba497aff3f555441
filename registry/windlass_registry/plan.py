"""What a pull would do, without a request: which hosts in which order, how it reaches each, and which file says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Error
from windlass_registry import hostsfile, references
from windlass_registry.credentials import DockerConfig
from windlass_registry.failures import shown_proxy
from windlass_registry.hosts import PULL, RESOLVE, Host, directories
from windlass_registry.pools import proxy_of


@dataclass(frozen=True)
class Step:
    """One host that would be asked."""

    url: str
    asked_for: tuple[str, ...]
    """Of ``resolve`` and ``pull`` what it may be asked for; a host with neither is passed over."""
    tls: str
    proxy: str
    headers: tuple[str, ...]
    """Their names; what they say may be secret."""
    credentials: str
    """Where the credentials would come from; never the credentials themselves."""
    place: str
    """The file and line that says that this host is asked."""


@dataclass(frozen=True)
class Plan:
    """The hosts of a reference, where they were looked for, and the errors found there."""

    reference: str
    looked_in: tuple[str, ...]
    """Directories in order, up to the one that decides."""
    steps: tuple[Step, ...]
    problems: tuple[str, ...]
    usable: bool
    """Whether a pull would send a request at all."""


def make(reference: str, roots: Sequence[Path], docker: DockerConfig | None, scheme: str = "") -> Plan:
    """Return the plan for a reference. Raises InvalidArgument if it is not a reference."""
    parsed = references.parse(reference)
    found = hostsfile.find(parsed.host, roots, scheme)
    looked = []
    for directory in directories(parsed.host, roots):
        looked.append(str(directory))
        if directory.is_dir():
            break
    steps = tuple(_step(host, docker) for host in found.hosts)
    problems = [str(problem) for problem in found.problems]
    for need in (RESOLVE, PULL):
        if found.hosts and not any(need in step.asked_for for step in steps):
            problems.append(f"{found.place}: no host may be asked to {need}; add it to the capabilities of one")
    usable = bool(steps) and not any(problem.severity == "error" for problem in found.problems)
    return Plan(reference, tuple(looked), steps, tuple(problems), usable)


def _step(host: Host, docker: DockerConfig | None) -> Step:
    asked = tuple(name for name in (RESOLVE, PULL) if name in host.capabilities)
    url = host.base if not host.falls_back else f"{host.base} (https first)"
    names = tuple(dict.fromkeys(name for name, _ in host.headers))
    return Step(url, asked, _tls(host), shown_proxy(proxy_of(host.base)), names, _credentials(host, docker), host.place)


def _tls(host: Host) -> str:
    if host.scheme == "http" and not host.falls_back:
        return "none: bytes and credentials go in clear"
    parts = ["certificate is not checked" if host.tls.skip_verify else "certificate is checked"]
    if host.tls.cas and not host.tls.skip_verify:
        parts.append(f"by the system's CAs and {', '.join(map(str, host.tls.cas))}")
    parts += [f"ours is {certificate}" for certificate, _ in host.tls.pairs]
    return ", ".join(parts)


def _credentials(host: Host, docker: DockerConfig | None) -> str:
    if docker is None:
        return "none"
    try:
        found, place = docker.find(host.authority)
    except Error as error:
        return f"cannot be had: {error}"
    if found is None:
        return f"none: {place}"
    return f"{'user ' + found.username if found.username else 'a token'} from {place}"
