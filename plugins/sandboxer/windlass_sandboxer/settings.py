"""What a pod's configuration says about its namespaces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from google.protobuf.message import DecodeError

from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import idmap

CONFIG = "runtime.v1.PodSandboxConfig"
HOSTNAME_LIMIT = 64
"""Bytes, of Linux."""
_SYSCTL = re.compile(r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+")
_WORDS = ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
_IPC = frozenset(f"kernel.{word}" for word in _WORDS)
PORTS = "net.ipv4.ip_unprivileged_port_start"
PING = "net.ipv4.ping_group_range"
DEFAULTS = {PORTS: "0", PING: "0 2147483647"}
"""Of pods with a network of their own, unless the client says otherwise (docs/containerd 5.5)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which namespaces a pod has of its own, and what is set in them."""

    net: bool = True
    ipc: bool = True
    pid: bool = True
    """Whether its containers share one; else each has its own, or the host's."""
    hostname: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    uidmap: str = ""
    """``container:host:length`` of its user namespace, empty for the host's."""
    gidmap: str = ""

    @property
    def user(self) -> bool:
        """Whether it has a user namespace of its own, which then owns the others."""
        return bool(self.uidmap)

    @property
    def uts(self) -> bool:
        """Whether it has a hostname of its own: one with the host's network has not."""
        return self.net


def read(options: Payload | None) -> Settings:
    """Read a pod's configuration; without one it is a pod with everything of its own.

    Raises InvalidArgument for what is no configuration, and for a sysctl that is not the pod's to set.
    """
    config = cri.PodSandboxConfig()
    if options is not None:
        if options.type_url.rpartition("/")[2] != CONFIG:
            raise InvalidArgument(
                f"sandbox options are of type {options.type_url[:100]}; this sandboxer reads {CONFIG}"
            )
        try:
            config.ParseFromString(options.value)
        except DecodeError as error:
            raise InvalidArgument(f"sandbox options are no {CONFIG}: {error}") from None
    wanted = config.linux.security_context.namespace_options
    net = wanted.network != cri.NODE
    if len(config.hostname.encode()) > HOSTNAME_LIMIT:
        raise InvalidArgument(f'hostname "{config.hostname[:HOSTNAME_LIMIT]}…" is longer than {HOSTNAME_LIMIT} bytes')
    if config.hostname and not net:
        raise InvalidArgument(
            f'unable to set hostname "{config.hostname[:HOSTNAME_LIMIT]}" without a private UTS namespace: '
            "the pod is in the host's network; leave the hostname out"
        )
    uidmap, gidmap = mappings(wanted)
    settings = Settings(
        net=net,
        ipc=wanted.ipc != cri.NODE,
        pid=wanted.pid == cri.POD,
        hostname=config.hostname,
        sysctls={**defaults(net, bool(uidmap)), **config.linux.sysctls},
        uidmap=uidmap,
        gidmap=gidmap,
    )
    for name, value in settings.sysctls.items():
        _check(name, value, settings)
    return settings


def defaults(net: bool, user: bool) -> dict[str, str]:
    """Return the sysctls of pods that the client does not set; a user namespace need not map all groups that ping."""
    if not net:
        return {}
    return {PORTS: DEFAULTS[PORTS]} if user else dict(DEFAULTS)


def mappings(wanted: cri.NamespaceOption) -> tuple[str, str]:
    """Return the mappings of a pod's user namespace, two empty texts without one. Raises InvalidArgument."""
    options = wanted.userns_options
    if not wanted.HasField("userns_options") or options.mode != cri.POD:
        return "", ""
    found = [
        ",".join(f"{each.container_id}:{each.host_id}:{each.length}" for each in ids)
        for ids in (options.uids, options.gids)
    ]
    for text in found:
        idmap.root_of(text)  # without a root nothing could be set up in it
    return found[0], found[1]


def _check(name: str, value: str, settings: Settings) -> None:
    """Refuse what would change the host, or another pod (as CVE-2022-0811 did, by a value with more settings in it)."""
    if not _SYSCTL.fullmatch(name) or ".." in name or "//" in name:
        raise InvalidArgument(f'"{name[:100]}" is not the name of a sysctl')
    if not value.isprintable() or len(value) > 1024:
        raise InvalidArgument(f"the value of sysctl {name} is not one line of at most 1024 characters")
    dotted = name.replace("/", ".")
    if dotted.startswith("net."):
        if not settings.net:
            raise InvalidArgument(f"sysctl {name} would change the host: the pod is in the host's network")
    elif dotted in _IPC or dotted.startswith("fs.mqueue."):
        if not settings.ipc:
            raise InvalidArgument(f"sysctl {name} would change the host: the pod has the host's IPC namespace")
    else:
        raise InvalidArgument(
            f"sysctl {name} is not of a namespace that a pod has; only net.*, fs.mqueue.* and IPC's are"
        )


def path_of(name: str) -> str:
    """Return a sysctl's file; where a name has slashes its dots are part of the words, as sysctl(8) has it."""
    first = next((char for char in name if char in "./"), ".")
    return "/proc/sys/" + (name.replace("/", "\0").replace(".", "/").replace("\0", ".") if first == "." else name)
