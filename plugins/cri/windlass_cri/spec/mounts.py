"""The mounts of a container: default ones, the pod's files, the image's volumes, the client's (docs/containerd 5.7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.pods.files import PodFiles
from windlass_cri.pods.handlers import RECURSIVE_READ_ONLY, kernel_version
from windlass_cri.record import Pod
from windlass_cri.spec.userns import UserNamespace
from windlass_linux.cgroups import hierarchies
from windlass_linux.mounting import unescape
from windlass_oci.mounts import depth
from windlass_oci.runtime_spec import IDMapping, Mount, Spec

PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}
CGROUPS = "/sys/fs/cgroup"
FLAGS = (
    *("nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "nodiratime", "diratime"),
    *("relatime", "norelatime", "strictatime", "nostrictatime", "nosymfollow", "symfollow"),
)
"""What ``mount_options`` may have: flags of the mount alone; its access and its propagation have fields."""
_ABLE = cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)
SYS_OF_THE_HOST: Mount = {
    "destination": "/sys",
    "type": "bind",
    "source": "/sys",
    "options": ["rbind", "rro", "nosuid", "nodev", "noexec"],
}
"""With the host's network and a user namespace that does not own it, Linux mounts no sysfs."""
SHARED_BY_THE_HOST = ("nsdelegate", "memory_recursiveprot")
"""Options of the one cgroup v2 of the machine, which a container's mount would otherwise take away."""


@dataclass(frozen=True)
class Ability:
    """What mounts of a container may be, beyond what this Linux is able to do."""

    features: cri.RuntimeHandlerFeatures | None = None
    """Of its runtime; None is a runtime that is able to do everything."""
    cgroup_writable: bool = False
    user: UserNamespace | None = None
    relabel: Callable[[str], None] | None = None
    """Gives a path of the host the container's SELinux label."""


ALL = Ability()


def set_mounts(
    spec: Spec,
    pod: Pod,
    files: PodFiles,
    config: cri.ContainerConfig,
    volumes: Iterable[cri.Mount],
    able: Ability = ALL,
) -> None:
    """Set all mounts: the default ones, then pod files, ``volumes`` and the client's by their depth.

    The client's mount at a place takes that of any other; two of its own at one place are both made.
    Raises Unknown, OSError.
    """
    taken = {clean(each.container_path) for each in config.mounts}
    shared = pod_mounts(pod, files, config, able.user)
    extra = [each for each in [*shared, *volumes] if clean(each.container_path) not in taken]
    asked = sorted([*config.mounts, *extra], key=lambda each: depth(each.container_path))
    places = {clean(each.container_path) for each in asked}
    privileged = config.linux.security_context.privileged
    defaults = default_mounts(spec, privileged, privileged or able.cgroup_writable)
    if able.user is not None and pod.host_network:
        defaults = [SYS_OF_THE_HOST if each["destination"] == "/sys" else each for each in defaults]
    kept = [each for each in defaults if not _replaced(clean(each["destination"]), places)]
    asked_for = {each.propagation for each in asked}
    # A node's table has thousands of mounts, and few containers need it.
    table = MountTable.read() if asked_for.intersection(_BEYOND_PRIVATE) else MountTable({})
    spec["mounts"] = [*kept, *(bind(each, table, able, make=each not in shared) for each in asked)]
    if strongest := next((PROPAGATION[each] for each in _BEYOND_PRIVATE if each in asked_for), ""):
        spec["linux"]["rootfsPropagation"] = strongest


_BEYOND_PRIVATE = (cri.PROPAGATION_BIDIRECTIONAL, cri.PROPAGATION_HOST_TO_CONTAINER)
"""The strongest first; without either it is the OCI runtime's to choose."""


def _replaced(place: str, places: set[str]) -> bool:
    return place in places or ("/dev" in places and place.startswith("/dev/"))


def clean(path: str) -> str:
    """Return a path of the container without doubled slashes, dots and a slash at the end."""
    return os.path.normpath(f"/{path.lstrip('/')}")


def default_mounts(spec: Spec, privileged: bool, cgroup_writable: bool) -> list[Mount]:
    """Return the mounts that every container has; a privileged one may write to /sys."""
    found = [each for each in spec["mounts"] if each["destination"] != "/run"]
    for each in found:
        if privileged and each["destination"] == "/sys":
            each["options"] = ["rw" if option == "ro" else option for option in each["options"]]
    options = ["nosuid", "noexec", "nodev", "relatime", "rw" if cgroup_writable else "ro"]
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


def pod_mounts(
    pod: Pod, files: PodFiles, config: cri.ContainerConfig, user: UserNamespace | None = None
) -> list[cri.Mount]:
    """Return what all containers of a pod share; what the daemon has made gets their SELinux label."""
    read_only = config.linux.security_context.readonly_rootfs
    shm = "/dev/shm" if pod.namespace_options.ipc == cri.NODE else str(files.shm)  # noqa: S108 - the host's own
    shared = {"/etc/hostname": files.hostname, "/etc/hosts": files.hosts, "/etc/resolv.conf": files.resolv_conf}
    mounts = [
        cri.Mount(container_path=at, host_path=str(path), readonly=read_only, selinux_relabel=True)
        for at, path in shared.items()
    ]
    if user is not None:
        for each in mounts:
            user.apply(each)
    own_shm = pod.namespace_options.ipc != cri.NODE
    mounts.append(
        cri.Mount(container_path="/dev/shm", host_path=shm, selinux_relabel=own_shm)  # noqa: S108 - in the container
    )
    return mounts


def bind(wanted: cri.Mount, table: MountTable, able: Ability = ALL, *, make: bool = True) -> Mount:
    """Return a bind mount; links in the host path are followed. Raises Unknown, OSError.

    A host path that is not there is made if ``make``. Files of the pod are not: it is being removed, and stays so.
    """
    if not wanted.container_path:
        raise Unknown(f'the mount of "{wanted.host_path}" has no container_path')
    if not wanted.host_path:
        raise Unknown(f'failed to mkdir "": mount {wanted.container_path} has no host_path')
    if not wanted.host_path.startswith("/"):
        raise Unknown(f'host_path "{wanted.host_path[:200]}" of {wanted.container_path} is not absolute')
    source = Path(wanted.host_path)
    if not source.exists():
        if not make:
            raise Unknown(f"{source} is gone; the pod is being removed")
        source.mkdir(mode=0o755, parents=True)
    real = os.path.realpath(source)
    table.check(real, wanted.propagation)
    options = ["rbind", PROPAGATION.get(wanted.propagation, "rprivate"), access(wanted, able)]
    options += further_options(wanted)
    if wanted.selinux_relabel and able.relabel is not None:
        able.relabel(real)
    if (wanted.uidMappings or wanted.gidMappings) and not (able.features or _ABLE).user_namespaces:
        raise Unknown(f'the runtime handler does not support ID-mapped mounts (hostPath="{wanted.host_path}")')
    made: Mount = {"destination": wanted.container_path, "type": "bind", "source": real, "options": options}
    if wanted.uidMappings:
        made["uidMappings"] = id_mappings(wanted.uidMappings)
    if wanted.gidMappings:
        made["gidMappings"] = id_mappings(wanted.gidMappings)
    return made


def further_options(wanted: cri.Mount) -> list[str]:
    """Return the options that a client wants beyond its other fields. Raises Unknown for one that is not a flag."""
    for each in wanted.mount_options:
        if each not in FLAGS:
            raise Unknown(
                f'mount option "{each[:50]}" of {wanted.container_path} is not allowed; allowed are {", ".join(FLAGS)}'
            )
    return list(dict.fromkeys(wanted.mount_options))


def access(wanted: cri.Mount, able: Ability = ALL) -> str:
    """Return ro, rro or rw. Raises Unknown for a recursive read-only mount that cannot be."""
    where = f'(hostPath="{wanted.host_path}")'
    if not wanted.recursive_read_only:
        return "ro" if wanted.readonly else "rw"
    if not wanted.readonly:
        raise Unknown(f"recursive read-only mount conflicts with RW mount {where}")
    if not (able.features or _ABLE).recursive_read_only_mounts:
        raise Unknown(f"RROUnsupported: runtime handler does not support recursive read-only mounts {where}")
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
