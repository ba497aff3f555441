"""The mounts of a container: default ones, the pod's files, the image's volumes, the client's (docs/containerd 5.7)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.files import PodFiles
from windlass_cri.handlers import RECURSIVE_READ_ONLY, kernel_version
from windlass_cri.record import Pod
from windlass_linux.cgroups import hierarchies
from windlass_linux.mounting import unescape
from windlass_oci.runtime_spec import IDMapping, Mount, Spec

PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}
CGROUPS = "/sys/fs/cgroup"
SHARED_BY_THE_HOST = ("nsdelegate", "memory_recursiveprot")
"""Options of the one cgroup v2 of the machine, which a container's mount would otherwise take away."""


def set_mounts(
    spec: Spec, pod: Pod, files: PodFiles, config: cri.ContainerConfig, volumes: Iterable[cri.Mount]
) -> None:
    """Set all mounts: the default ones, then pod files, ``volumes`` and the client's by their depth.

    The client's mount at a place takes that of any other; two of its own at one place are both made.
    Raises Unknown, OSError.
    """
    taken = {clean(each.container_path) for each in config.mounts}
    extra = [each for each in [*pod_mounts(pod, files, config), *volumes] if clean(each.container_path) not in taken]
    asked = sorted([*config.mounts, *extra], key=lambda each: depth(each.container_path))
    places = {clean(each.container_path) for each in asked}
    privileged = config.linux.security_context.privileged
    kept = [each for each in default_mounts(spec, privileged) if not _replaced(clean(each["destination"]), places)]
    table = MountTable.read()
    spec["mounts"] = [*kept, *(bind(each, table) for each in asked)]
    if strongest := max((PROPAGATION.get(each.propagation, "") for each in asked), key=_STRENGTH.index, default=""):
        spec["linux"]["rootfsPropagation"] = strongest


_STRENGTH = ("", "rprivate", "rslave", "rshared")


def _replaced(place: str, places: set[str]) -> bool:
    return place in places or ("/dev" in places and place.startswith("/dev/"))


def clean(path: str) -> str:
    """Return a path of the container without doubled slashes, dots and a slash at the end."""
    return os.path.normpath(f"/{path.lstrip('/')}")


def depth(path: str) -> int:
    """Return how many parts a path has, so that mounts do not hide those below them."""
    return clean(path).rstrip("/").count("/")


def default_mounts(spec: Spec, privileged: bool) -> list[Mount]:
    """Return the mounts that every container has; a privileged one may write to /sys and to control groups."""
    found = [each for each in spec["mounts"] if each["destination"] != "/run"]
    for each in found:
        if privileged and each["destination"] == "/sys":
            each["options"] = ["rw" if option == "ro" else option for option in each["options"]]
    options = ["nosuid", "noexec", "nodev", "relatime", "rw" if privileged else "ro"]
    if not any(each["type"] == "cgroup" for each in spec["linux"]["namespaces"]):
        options += host_cgroup_options()
    return [*found, {"destination": CGROUPS, "type": "cgroup", "source": "cgroup", "options": options}]


def host_cgroup_options() -> list[str]:
    """Return what the host has set for its cgroup v2, none for version 1."""
    try:
        with Path("/proc/self/mounts").open(encoding="utf-8", errors="replace") as table:
            options = next((line.split()[3] for line in table if line.split()[1] == CGROUPS), "")
    except OSError:
        return []
    return [each for each in options.split(",") if each in SHARED_BY_THE_HOST]


def unified_cgroups() -> bool:
    """Tell whether this machine has cgroup v2 alone."""
    return [kind for _, kind, _ in hierarchies()] == ["cgroup2"]


def pod_mounts(pod: Pod, files: PodFiles, config: cri.ContainerConfig) -> list[cri.Mount]:
    """Return what all containers of a pod share."""
    read_only = config.linux.security_context.readonly_rootfs
    shm = "/dev/shm" if pod.namespace_options.ipc == cri.NODE else str(files.shm)  # noqa: S108 - the host's own
    shared = {"/etc/hostname": files.hostname, "/etc/hosts": files.hosts, "/etc/resolv.conf": files.resolv_conf}
    return [
        *(cri.Mount(container_path=at, host_path=str(path), readonly=read_only) for at, path in shared.items()),
        cri.Mount(container_path="/dev/shm", host_path=shm),  # noqa: S108 - in the container
    ]


def bind(wanted: cri.Mount, table: MountTable) -> Mount:
    """Return a bind mount. A host path that is not there is made; links in it are followed. Raises Unknown, OSError."""
    if not wanted.container_path:
        raise Unknown(f'the mount of "{wanted.host_path}" has no container_path')
    if not wanted.host_path:
        raise Unknown(f'failed to mkdir "": mount {wanted.container_path} has no host_path')
    source = Path(wanted.host_path)
    if not source.exists():
        source.mkdir(mode=0o755, parents=True)
    real = os.path.realpath(source)
    table.check(real, wanted.propagation)
    options = ["rbind", PROPAGATION.get(wanted.propagation, "rprivate"), access(wanted)]
    made: Mount = {"destination": wanted.container_path, "type": "bind", "source": real, "options": options}
    if wanted.uidMappings:
        made["uidMappings"] = id_mappings(wanted.uidMappings)
    if wanted.gidMappings:
        made["gidMappings"] = id_mappings(wanted.gidMappings)
    return made


def access(wanted: cri.Mount) -> str:
    """Return ro, rro or rw. Raises Unknown for a recursive read-only mount that cannot be."""
    where = f'(hostPath="{wanted.host_path}")'
    if not wanted.recursive_read_only:
        return "ro" if wanted.readonly else "rw"
    if not wanted.readonly:
        raise Unknown(f"recursive read-only mount conflicts with RW mount {where}")
    if not recursive_read_only():
        raise Unknown(f"RROUnsupported: this Linux does not support recursive read-only mounts {where}")
    if wanted.propagation != cri.PROPAGATION_PRIVATE:
        name = cri.MountPropagation.Name(wanted.propagation)
        raise Unknown(f'recursive read-only mount needs private propagation, got "{name}" {where}')
    return "rro"


def recursive_read_only() -> bool:
    """Tell whether Linux can make a mount and all below it read-only."""
    return kernel_version(os.uname().release) >= RECURSIVE_READ_ONLY


def id_mappings(wanted: Iterable[cri.IDMapping]) -> list[IDMapping]:
    """Return mappings as a spec has them."""
    return [{"containerID": each.container_id, "hostID": each.host_id, "size": each.length} for each in wanted]


@dataclass(frozen=True)
class MountTable:
    """Where file systems are mounted, and with whom each mount shares what is mounted below it."""

    peers: Mapping[str, Sequence[str]]
    """Mount points, and their optional fields (proc(5), mountinfo): ``shared:1``, ``master:1``."""

    @classmethod
    def read(cls, path: str = "/proc/self/mountinfo") -> MountTable:
        """Read this process's mounts."""
        found: dict[str, list[str]] = {}
        for line in Path(path).read_bytes().splitlines():
            fields = line.partition(b" - ")[0].split(b" ")
            found[os.fsdecode(unescape(fields[4]))] = [os.fsdecode(each) for each in fields[6:]]
        return cls(found)

    def check(self, path: str, propagation: cri.MountPropagation.ValueType) -> None:
        """Raise Unknown when mounts cannot propagate from or to ``path``, which has no links in it, as asked."""
        kinds = {
            cri.PROPAGATION_HOST_TO_CONTAINER: ("a shared or slave mount", ("shared:", "master:")),
            cri.PROPAGATION_BIDIRECTIONAL: ("a shared mount", ("shared:",)),
        }
        if propagation not in kinds:
            return
        name, prefixes = kinds[propagation]
        place = self.holding(path)
        if not any(each.startswith(prefixes) for each in self.peers[place]):
            raise Unknown(f'path "{path}" is mounted on "{place}" but it is not {name}')

    def holding(self, path: str) -> str:
        """Return the mount point that ``path`` is below."""
        while path not in self.peers and path != "/":
            path = os.path.dirname(path)  # noqa: PTH120 - of a text, with no file behind it
        return path
