"""The network of pods: namespaces, and CNI's networks in them (docs/containerd 5.12)."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from windlass.errors import Error, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cni.cache import Cache
from windlass_cni.config import Json, Network, Object
from windlass_cni.directory import NetworkDirectory
from windlass_cni.execute import Programs
from windlass_cni.networks import Networks, add_all, delete_all
from windlass_cni.orphans import end_orphans
from windlass_cni.protocol import Attachment, capability_args
from windlass_cni.result import Result
from windlass_cri.config import Cni
from windlass_cri.spec.userns import UserNamespace
from windlass_linux import netns

logger = logging.getLogger(__name__)

OwnNetworks = Mapping[str, tuple[str, int]]
"""Directory and number of networks, by runtime handler."""
NAMESPACES = Path("/var/run/netns")
INTERFACE = "eth0"
BANDWIDTH = {"ingress": "kubernetes.io/ingress-bandwidth", "egress": "kubernetes.io/egress-bandwidth"}
BURST = (1 << 32) - 1
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


class PodNetwork:
    """Attaches pods to the networks of directories that are watched: one for all, and those of runtime handlers."""

    def __init__(self, config: Cni, cache: Path, own: OwnNetworks | None = None, place: Path = NAMESPACES) -> None:
        """Read networks as ``config`` says; results are kept in the directory ``cache``.

        ``own`` has directories and numbers of networks by handler. Namespaces get their names in ``place``.
        """
        self._config = config
        self._place = place
        self._directory = NetworkDirectory(Path(config.conf_dir), config.max_conf_num)
        self._own = {name: NetworkDirectory(Path(path), most) for name, (path, most) in (own or {}).items()}
        self._networks = Networks(Programs(tuple(map(Path, config.programs))), Cache(cache))
        self._watching: list[asyncio.Task[None]] = []
        self._collecting = asyncio.Lock()
        """Held while plugins are told what is attached: nothing may be attached meanwhile."""

    async def start(self) -> None:
        """Read the directories, and follow their changes until `stop`."""
        for directory in (self._directory, *self._own.values()):
            await directory.load()
            self._watching.append(asyncio.create_task(directory.watch()))

    async def stop(self) -> None:
        """Follow changes no longer."""
        for watching in self._watching:
            watching.cancel()
        if self._watching:
            await asyncio.wait(self._watching)

    def _of(self, handler: str) -> NetworkDirectory:
        return self._own.get(handler, self._directory)

    async def problem(self) -> str:
        """Return why pods cannot have a network now, empty when they can."""
        try:
            for network in self._directory.networks:
                await self._networks.status(network)
        except Error as error:
            return str(error)
        return ""

    async def reload(self) -> None:
        """Read the directory again."""
        await self._directory.load()

    async def make_namespace(self, id: str, user: UserNamespace | None = None) -> str:
        """Make the network namespace of a pod, in a new ``user`` namespace if there is one, and return its path."""
        path = namespace_of(id, self._place)
        if user is None:
            await asyncio.to_thread(netns.create, Path(path))
        else:
            await asyncio.to_thread(netns.create_owned, Path(path), user.uidmap, user.gidmap)
        return path

    def path_of(self, id: str) -> str:
        """Return where the namespace of a pod is, or would be; an earlier daemon may have had another place for it."""
        paths = [namespace_of(id, self._place), namespace_of(id)]
        return next((path for path in paths if Path(path).exists()), paths[0])

    async def is_there(self, path: str) -> bool:
        """Tell whether a network namespace is there; after a reboot its file may be, without it."""
        return await asyncio.to_thread(netns.is_there, Path(path))

    async def remove_namespace(self, path: str) -> None:
        """Remove a network namespace; one that is gone is not an error."""
        await asyncio.to_thread(netns.remove, Path(path))

    async def attach(self, id: str, config: cri.PodSandboxConfig, path: str, handler: str = "") -> tuple[str, ...]:
        """Attach a pod to the networks of its handler and return its addresses, the main first; all or none.

        Raises the error of the network and plugin that failed, and Unknown for one that gave no address.
        """
        attachment = Attachment(id, path, INTERFACE, pod_arguments(id, config.metadata))
        async with self._collecting:
            pass  # what plugins were told to keep has nothing of this pod
        listed = list(self._of(handler).networks)
        serially = self._config.setup_serially
        results = await add_all(self._networks, listed, attachment, arguments(config), serially)
        addresses = ordered(results, self._config.ip_pref)
        if not addresses:
            await delete_all(self._networks, id)
            raise Unknown(f'network "{listed[0].name}" gave {INTERFACE} no address')
        return addresses

    async def detach(self, id: str, path: str) -> None:
        """Detach a pod; one that is not attached is not an error. Raises the plugins' errors."""
        there = bool(path) and await asyncio.to_thread(netns.is_there, Path(path))
        await delete_all(self._networks, id, netns=path if there else "")

    async def collect(self, known: Collection[str]) -> None:
        """Detach pods of ours that are not ``known``, and have plugins free what nothing uses any more.

        Other programs keep their attachments in the same directory: those are told apart by their namespaces' names.
        To be called before anything is attached. What fails is in the log, and tried again by the next daemon.
        """
        async with self._collecting:
            await asyncio.to_thread(end_orphans)
            for cached in await asyncio.to_thread(list, self._networks.cache.all()):
                if cached.attachment.container not in known and self._is_ours(cached.attachment):
                    await self._try(self._remove(cached.attachment))
            kept = await asyncio.to_thread(list, self._networks.cache.all())
            live = {(each.attachment.container, each.attachment.interface) for each in kept}
            for network in {each.name: each for each in self._all()}.values():
                await self._try(self._networks.collect(network, live))

    async def _remove(self, attachment: Attachment) -> None:
        await self.detach(attachment.container, attachment.netns)
        await self.remove_namespace(attachment.netns)

    async def _try(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (Error, OSError) as error:
            logger.warning("networks: what earlier pods had is not all collected: %s", error)

    def _is_ours(self, attachment: Attachment) -> bool:
        try:
            return attachment.netns in (
                namespace_of(attachment.container, self._place),
                namespace_of(attachment.container),
            )
        except ValueError:
            return False  # the ID is not one of ours

    def _all(self) -> list[Network]:
        found: list[Network] = []
        for directory in (self._directory, *self._own.values()):
            with suppress(Error):
                found += directory.networks
        return found

    async def results(self, id: str) -> list[Object]:
        """Return what the plugins answered when they attached a pod, the first network first."""
        cached = await asyncio.to_thread(self._networks.cache.of_container, id)
        return [each.result for each in cached if each.result is not None]

    @property
    def networks(self) -> Sequence[Network]:
        """The networks that there are, for those who want to see them."""
        return self._all()


def namespace_of(id: str, place: Path = NAMESPACES) -> str:
    """Return the path of a pod's network namespace. It follows from the ID, so that it is found after any crash."""
    return str(place / f"cni-{uuid.UUID(id[:32])}")


def pod_arguments(id: str, metadata: cri.PodSandboxMetadata) -> tuple[tuple[str, str], ...]:
    """Return CNI_ARGS of a pod."""
    return (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", id),
        ("K8S_POD_UID", metadata.uid),
    )


def arguments(config: cri.PodSandboxConfig) -> Object:
    """Return the arguments of a pod for plugins that are capable of them. Raises Unknown for a bad bandwidth."""
    ports: list[Json] = [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": cri.Protocol.Name(port.protocol).lower(),
            "hostIP": port.host_ip,
        }
        for port in config.port_mappings
        if port.host_port > 0
    ]
    dns = config.dns_config
    servers: dict[str, Json] = {
        "servers": list(dns.servers),
        "searches": list(dns.searches),
        "options": list(dns.options),
    }
    return capability_args(
        {
            "portMappings": ports,
            "bandwidth": _bandwidth(config.annotations),
            "dns": {key: value for key, value in servers.items() if value},
            "io.kubernetes.cri.pod-annotations": dict(config.annotations),
            "cgroupPath": config.linux.cgroup_parent,
        }
    )


def _bandwidth(annotations: Mapping[str, str]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for direction, key in BANDWIDTH.items():
        if key in annotations:
            found |= {f"{direction}Rate": quantity(key, annotations[key]), f"{direction}Burst": BURST}
    return found


def quantity(key: str, text: str) -> int:
    """Return a quantity of Kubernetes, such as 10M or 1Gi, as a number. Raises Unknown."""
    digits = text.rstrip("kKMGTi")
    unit = text[len(digits) :]
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 15 or unit not in _UNITS:
        raise Unknown(f'annotation {key} is "{text[:50]}", which is not a quantity such as 10M')
    return int(digits) * _UNITS[unit]


def ordered(results: Sequence[Result], preference: str) -> tuple[str, ...]:
    """Return the addresses of a pod's first interface: the first of the preferred family, then all others."""
    found = [each.ip for result in results if result.interface == INTERFACE for each in result.of_container()]
    if preference == "cni":
        return tuple(found)
    main = next((ip for ip in found if (":" in ip) == (preference == "ipv6")), None)
    return tuple(found) if main is None else (main, *(ip for ip in found if ip != main))
