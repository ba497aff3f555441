"""What a compose file asks for, checked and complete: no short forms, no variables, no relative paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from windlass_client.compose.values import Place
from windlass_client.lifecycle.healthcheck import HealthOptions

STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
DEFAULT_NETWORK = "default"


@dataclass(frozen=True)
class Port:
    """A port of the container; ``published`` is the host's, a range of which one is taken, or empty: any."""

    target: int
    published: str = ""
    protocol: str = "tcp"
    host_ip: str = ""


@dataclass(frozen=True)
class Mount:
    """A volume, a directory or file of the host, or a file system in memory; no source is a volume without a name."""

    kind: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = ""
    create: bool = True
    """Make the host's directory if it is not there."""
    size: int = 0
    mode: int = 0


@dataclass(frozen=True)
class Attachment:
    """A service in a network; it has the service's name there as well."""

    aliases: tuple[str, ...] = ()
    ipv4: str = ""


@dataclass(frozen=True)
class Dependency:
    """What must be so of another service before a service starts."""

    condition: str = STARTED
    required: bool = True
    restart: bool = False


@dataclass(frozen=True)
class Build:
    """Where an image is built."""

    context: str
    dockerfile: str = ""
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What a container may take; 0 is no limit."""

    memory: int = 0
    cpus: float = 0
    pids: int = 0


@dataclass(frozen=True)
class Service:
    """Containers of one kind."""

    name: str
    at: Place = field(compare=False)
    image: str = ""
    build: Build | None = None
    pull_policy: str = ""
    platform: str = ""
    container_name: str = ""
    replicas: int = 1
    profiles: tuple[str, ...] = ()
    depends_on: Mapping[str, Dependency] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    networks: Mapping[str, Attachment] = field(default_factory=dict)
    network_mode: str = ""
    """`none`, `host`, `service:NAME` or `container:NAME`, in place of networks."""
    ports: tuple[Port, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    devices: tuple[str, ...] = ()
    gpus: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: Mapping[str, str] = field(default_factory=dict)
    """As `--ulimit` has them: `1024`, or `1024:2048`, soft before hard."""
    shm_size: int = 0
    oom_score: int | None = None
    limits: Limits = Limits()
    restart: str = "no"
    health: HealthOptions | None = None
    stop_signal: str = ""
    stop_grace_period: float = 10
    terminal: bool = False
    stdin: bool = False
    init: bool = False
    runtime: str = ""


@dataclass(frozen=True)
class Network:
    """A network of the project, or one that others made."""

    key: str
    name: str
    external: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    subnets: tuple[str, ...] = ()
    gateway: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """A volume of the project, or one that others made."""

    key: str
    name: str
    external: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """All that compose files ask for, under one name."""

    name: str
    directory: Path
    files: tuple[Path, ...]
    services: Mapping[str, Service]
    networks: Mapping[str, Network]
    volumes: Mapping[str, Volume]
    disabled: Mapping[str, Service] = field(default_factory=dict)
    """Services of profiles that are not active."""
