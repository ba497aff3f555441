"""Which hosts are asked for the images of a registry, in which order, and how (docs/containerd 6.4)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PULL, RESOLVE, PUSH, REFERRERS = "pull", "resolve", "push", "referrers"
CAPABILITIES = frozenset({PULL, RESOLVE, PUSH, REFERRERS})
DIAL_TIMEOUT = 30.0
DOCKER_HUB = "docker.io"
DOCKER_HUB_REGISTRY = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Tls:
    """How a host's certificate is checked, and which certificates are ours; CAs are added to the system's."""

    cas: tuple[Path, ...] = ()
    pairs: tuple[tuple[Path, Path | None], ...] = ()
    """Certificate and key; a file that has both has None for the key."""
    skip_verify: bool = False
    explicit: bool = False
    """Somebody has said something about TLS for this host."""


@dataclass(frozen=True, slots=True)
class Host:
    """One server of the distribution API."""

    scheme: str
    authority: str
    """Name and, if it is not the scheme's own, port."""
    path: str = "/v2"
    capabilities: frozenset[str] = CAPABILITIES
    tls: Tls = field(default_factory=Tls)
    headers: tuple[tuple[str, str], ...] = ()
    dial_timeout: float = DIAL_TIMEOUT
    place: str = "default"
    """Where it is written that this host is asked."""

    @property
    def base(self) -> str:
        """The beginning of the host's URLs."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def falls_back(self) -> bool:
        """Whether https is tried first, and http only if the host does not speak https."""
        return self.scheme == "http" and self.tls.explicit and split_port(self.authority)[1] != "80"


def split_port(authority: str) -> tuple[str, str]:
    """Return name and port of ``name[:port]``; the port may be empty."""
    name, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        return authority, ""
    return name, port


def is_loopback(authority: str) -> bool:
    """Return whether a name stands for this machine."""
    name = split_port(authority)[0].strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def origin(registry: str, scheme: str = "", tls: Tls | None = None, place: str = "default") -> Host:
    """Return the host that a registry's name itself stands for.

    A loopback address on a port of its own is asked by https, and by http if it does not speak that,
    unless ``scheme`` says which.
    """
    authority = DOCKER_HUB_REGISTRY if registry == DOCKER_HUB else registry
    port = split_port(authority)[1]
    tls = tls or Tls()
    if is_loopback(authority):
        if not tls.explicit and port != "80":
            tls = Tls(skip_verify=True, explicit=not scheme)
        scheme = scheme or ("https" if port in ("", "443") else "http")
    return Host(scheme or ("http" if port == "80" else "https"), authority, tls=tls, place=place)


def same_registry(authority: str, registry: str) -> bool:
    """Return whether a host is the registry itself, which then needs no name (``ns``)."""
    return authority == registry or {authority, registry} == {DOCKER_HUB, DOCKER_HUB_REGISTRY}


def directories(registry: str, roots: Sequence[Path]) -> list[Path]:
    """Return where a registry's ``hosts.toml`` is looked for, in order."""
    name, port = split_port(registry)
    names = [f"{name}_{port}_", f"{name}:{port}"] if port else [name]
    return [root / found for root in roots for found in (*names, "_default")]
