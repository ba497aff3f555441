"""What CRI knows of a pod and of a container, and how it is kept in the daemon's records."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Self

from windlass.contracts.containers import Container as Row
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.values import Payload
from windlass.errors import DataLoss, InvalidArgument, Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.spec.resources import resources_of
from windlass_cri.stats.figures import Value, limits_of
from windlass_oci.payloads import spec_of
from windlass_oci.runtime_spec import Spec, User

NAMESPACE = "k8s.io"
KIND = "io.cri-containerd.kind"
POD_CONFIG = "windlass.dev/cri.config"
POD_DATA = "windlass.dev/cri.pod"
CONTAINER_CONFIG = "windlass.dev/cri.config"
CONTAINER_DATA = "windlass.dev/cri.container"
CONFIG_TYPE = "runtime.v1.PodSandboxConfig"
CONTAINER_CONFIG_TYPE = "runtime.v1.ContainerConfig"
JSON = "application/json"
OOM_KILLED = "OOMKilled"


@dataclass(frozen=True, slots=True)
class PodData:
    """What is kept of a pod beyond the client's configuration."""

    name: str
    handler: str = ""
    netns: str = ""
    addresses: tuple[str, ...] = ()
    """The main one first; none for the host's network."""
    created_at: int = 0
    sandboxer: str = ""
    """ID of its controller, which stays so when the handler's configuration changes."""
    process_label: str = ""
    """Of SELinux, which its containers inherit; empty for none."""


@dataclass
class Pod:
    """A pod. ``ready`` is whether its sandbox runs."""

    id: str
    config: cri.PodSandboxConfig
    data: PodData
    ready: bool = False
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """Paths of the namespaces that its containers join, by kind."""
    pid: int = 0
    """Of its sandbox's process, 0 without one."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, compare=False)
    """Held by a call that stops or removes it."""
    stopping: bool = field(default=False, compare=False)
    """Whether its containers are being stopped: no other may start."""
    listed: tuple[bool, PodData, bytes] | None = field(default=None, compare=False, repr=False)
    """Its bytes in a list, with what they were made of (`windlass_cri.views.pod_entry`)."""
    attributes: bytes = field(default=b"", compare=False, repr=False)
    """How its stats begin, empty before they are asked for."""

    @property
    def namespace_options(self) -> cri.NamespaceOption:
        """Which namespaces are the pod's, the node's or each container's."""
        return self.config.linux.security_context.namespace_options

    @property
    def host_network(self) -> bool:
        """Whether it is in the host's network."""
        return self.namespace_options.network == cri.NODE

    def check_running(self) -> None:
        """Raise Unknown when containers cannot run in it."""
        if not self.ready or self.stopping:
            raise Unknown(f"sandbox container {self.id} is not running")

    def to_sandbox(self, runtime: str, sandboxer: str, options: Payload | None = None) -> Sandbox:
        """Return the daemon's record."""
        return Sandbox(
            self.id,
            runtime=runtime,
            runtime_options=options,
            labels={"name": self.data.name},
            sandboxer=sandboxer,
            extensions={
                POD_CONFIG: Payload(CONFIG_TYPE, self.config.SerializeToString()),
                POD_DATA: Payload(JSON, json.dumps(asdict(self.data)).encode()),
            },
        )


def pod_of(sandbox: Sandbox) -> Pod | None:
    """Return the pod of a record; None for one that CRI has not made. Raises DataLoss for one that is damaged."""
    config, data = sandbox.extensions.get(POD_CONFIG), sandbox.extensions.get(POD_DATA)
    if config is None or data is None:
        return None
    try:
        known = json.loads(data.value)
        known["addresses"] = tuple(known["addresses"])
        return Pod(sandbox.id, cri.PodSandboxConfig.FromString(config.value), PodData(**known))
    except (ValueError, TypeError, KeyError) as error:
        raise DataLoss(f"the record of pod {sandbox.id} is damaged: {error}") from None


@dataclass(frozen=True, slots=True)
class Status:
    """How far a container has come; times are nanoseconds since the epoch, 0 for not yet."""

    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    unknown: bool = False

    @property
    def state(self) -> cri.ContainerState.ValueType:
        """The state as CRI has it."""
        if self.unknown:
            return cri.CONTAINER_UNKNOWN
        if self.finished_at:
            return cri.CONTAINER_EXITED
        return cri.CONTAINER_RUNNING if self.started_at else cri.CONTAINER_CREATED

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"version": 1, **asdict(self)}))
        temporary.rename(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; one that is damaged says that nothing is known."""
        try:
            document = json.loads(path.read_text())
            document.pop("version")
            return cls(**document)
        except (OSError, ValueError, TypeError, KeyError):
            return cls(unknown=True)


@dataclass(frozen=True, slots=True)
class ContainerData:
    """What is kept of a container beyond the client's configuration."""

    name: str
    pod: str
    log: str = ""
    """Absolute path of its log, empty for none."""
    image_id: str = ""
    stop_signal: str = ""
    """As the image says, empty for SIGTERM."""


@dataclass
class Container:
    """A container of a pod."""

    id: str
    config: cri.ContainerConfig
    data: ContainerData
    directory: Path
    """Of its status."""
    status: Status
    starting: bool = False
    removing: bool = False
    stopped_by_signal: bool = False
    """Whether a first stop has sent its signal."""
    updating: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its limits are changed."""
    user: cri.LinuxContainerUser | None = None
    """Who its process is; None when its spec is not known."""
    resources: cri.LinuxContainerResources = field(default_factory=cri.LinuxContainerResources)
    listed: tuple[Status, bytes] | None = field(default=None, compare=False, repr=False)
    """Its bytes in a list, with what they were made of (`windlass_cri.views.container_entry`)."""
    attributes: bytes = field(default=b"", compare=False, repr=False)
    """How its stats begin, empty before they are asked for."""
    limits: tuple[Value, ...] = ()
    """Those that metrics show."""

    def learn(self, spec: Spec) -> None:
        """Know what its status shows of its spec."""
        who = spec["process"].get("user") or User(uid=0, gid=0)
        groups = who.get("additionalGids") or []
        self.user = cri.LinuxContainerUser(uid=who["uid"], gid=who["gid"], supplemental_groups=groups)
        self.resources = resources_of(spec)
        self.limits = tuple(limits_of(spec))

    def change(self, **changes: object) -> None:
        """Change its status, and keep it."""
        self.status = replace(self.status, **changes)  # type: ignore[arg-type] # fields by their names
        self.status.write(self.directory / "status")

    def oom_killed(self) -> None:
        """Know that Linux has killed one of its processes for want of memory, which is its reason from now on."""
        if self.status.reason != OOM_KILLED:
            self.change(reason=OOM_KILLED)

    def extensions(self) -> dict[str, Payload]:
        """Return what its record in the daemon keeps."""
        return {
            CONTAINER_CONFIG: Payload(CONTAINER_CONFIG_TYPE, self.config.SerializeToString()),
            CONTAINER_DATA: Payload(JSON, json.dumps(asdict(self.data)).encode()),
        }


def container_of(row: Row, directory: Path) -> Container | None:
    """Return the container of a record; None for one that CRI has not made. Raises DataLoss."""
    config, data = row.extensions.get(CONTAINER_CONFIG), row.extensions.get(CONTAINER_DATA)
    if config is None or data is None:
        return None
    try:
        found = Container(
            row.id,
            cri.ContainerConfig.FromString(config.value),
            ContainerData(**json.loads(data.value)),
            directory,
            Status.read(directory / "status"),
        )
        found.learn(spec_of(row))
        return found
    except (ValueError, TypeError, KeyError, AttributeError, InvalidArgument) as error:
        raise DataLoss(f"the record of container {row.id} is damaged: {error}") from None
