"""Options of `run` that change one part of a container's spec each, as docker has them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument, NotFound
from windlass_oci import capabilities, users
from windlass_oci.defaults import bounded
from windlass_oci.mounts import bind

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Spec

RLIMITS = frozenset(
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()  # noqa: SIM905
)
"""getrlimit(2)"""
ULIMIT = re.compile(r"([a-z]+)=(-1|\d{1,18})(?::(-1|\d{1,18}))?")
UNLIMITED = (1 << 64) - 1
INITS = ("docker-init", "tini-static", "catatonit")
"""Programs that reap: static ones, because the image brings no libraries for them."""
INIT_PLACE = "/sbin/docker-init"
SHM = "/dev/shm"  # noqa: S108 - inside the container
GPU_KINDS = ("nvidia.com/gpu", "amd.com/gpu")


@dataclass(frozen=True)
class SpecParts:
    """What the options say; what is empty changes nothing."""

    init: bool = False
    privileged: bool = False
    devices: tuple[str, ...] = ()
    """CDI names, or ``/dev/x[:/dev/y][:rwm]``."""
    gpus: str = ""
    ulimits: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    shm_size: int = 0
    groups: tuple[str, ...] = ()
    domainname: str = ""
    oom_score: int | None = None

    def apply(self, spec: Spec) -> None:
        """Change a spec, whose user and capabilities are set. Raises InvalidArgument, NotFound, Unknown."""
        if self.privileged:
            make_privileged(spec)
        if self.init:
            add_init(spec)
        for text in self.ulimits:
            set_ulimit(spec, text)
        for text in self.sysctls:
            set_sysctl(spec, text)
        if self.shm_size:
            set_shm_size(spec, self.shm_size)
        if self.domainname:
            spec["domainname"] = self.domainname
        if self.oom_score is not None:
            spec["process"]["oomScoreAdj"] = self.oom_score
        if self.devices or self.gpus:
            add_devices(spec, self.devices, self.gpus)

    def add_groups(self, spec: Spec, accounts: users.Accounts) -> None:
        """Let the process be in more groups, named by the image's accounts. Raises as `find_user`."""
        user = spec["process"]["user"]
        found = [users.find_user(f"0:{group}", accounts).gid for group in self.groups]
        user["additionalGids"] = list(dict.fromkeys([*(user.get("additionalGids") or []), *found]))


def make_privileged(spec: Spec) -> None:
    """Let the container do all that root can: its devices, its capabilities, its /sys (containerd, WithPrivileged)."""
    from windlass_oci import devices

    process, linux = spec["process"], spec["linux"]
    process["capabilities"] = bounded(capabilities.current())
    process["noNewPrivileges"] = False
    process.pop("apparmorProfile", None)
    linux.pop("seccomp", None)
    linux["maskedPaths"] = []
    linux["readonlyPaths"] = []
    for mount in spec["mounts"]:
        if mount["type"] in ("sysfs", "cgroup", "cgroup2"):
            mount["options"] = ["rw" if option == "ro" else option for option in mount.get("options") or []]
    linux["resources"]["devices"] = [{"allow": True, "access": devices.ANY}]
    held = linux.get("devices") or []
    linux["devices"] = [*held, *(devices.device(path, str(path)) for path in devices.below(devices.DEVICES))]


def add_init(spec: Spec) -> None:
    """Put a program that forwards signals and reaps before the container's own. Raises NotFound for want of one."""
    found = next(filter(None, map(shutil.which, INITS)), None)
    if not found:
        raise NotFound(f"--init needs one of {', '.join(INITS)} on this machine; install the Debian package tini")
    spec["mounts"].append(bind(found, INIT_PLACE, "ro"))
    spec["process"]["args"] = [INIT_PLACE, "--", *spec["process"]["args"]]


def set_ulimit(spec: Spec, text: str) -> None:
    """Set a limit of processes: ``nofile=1024:2048``."""
    match = ULIMIT.fullmatch(text)
    if not match or match[1].upper() not in RLIMITS:
        raise InvalidArgument(f"ulimit {text[:60]!r} is not known; write nofile=1024:2048, soft before hard")
    soft, hard = (UNLIMITED if each == "-1" else int(each) for each in (match[2], match[3] or match[2]))
    if soft > hard:
        raise InvalidArgument(f"ulimit {text[:60]!r} has a soft limit above the hard one")
    name = f"RLIMIT_{match[1].upper()}"
    others = [each for each in spec["process"].get("rlimits") or [] if each["type"] != name]
    spec["process"]["rlimits"] = [*others, {"type": name, "hard": hard, "soft": soft}]


def set_sysctl(spec: Spec, text: str) -> None:
    """Set a parameter of the container's namespaces: ``net.ipv4.ip_forward=1``."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.*/-]+", key):
        raise InvalidArgument(f"sysctl {text[:60]!r} is not of the form KEY=VALUE")
    spec["linux"].setdefault("sysctl", {})[key] = value


def set_shm_size(spec: Spec, size: int) -> None:
    """Set how much /dev/shm holds."""
    for mount in spec["mounts"]:
        if mount["destination"] == SHM:
            kept = [option for option in mount.get("options") or [] if not option.startswith("size=")]
            mount["options"] = [*kept, f"size={size}"]


def add_devices(spec: Spec, wanted: tuple[str, ...], gpus: str) -> None:
    """Give devices by the names of the Container Device Interface, or by their paths. Raises InvalidArgument."""
    from windlass_oci import cdi

    names = [each for each in wanted if cdi.is_qualified(each)]
    for each in wanted:
        if each not in names:
            _add_path(spec, each)
    if gpus:
        names += _gpu_names(gpus)
    if names:
        cdi.inject(spec, names, cdi.DIRECTORIES)


def _add_path(spec: Spec, text: str) -> None:
    from windlass_oci import devices

    path, place, access = _device_words(text)
    for found in devices.named(path, place):
        spec["linux"]["devices"] = [*(spec["linux"].get("devices") or []), found]
        spec["linux"]["resources"]["devices"].append(devices.rule(found, access))


def _device_words(text: str) -> tuple[str, str, str]:
    from windlass_oci import devices

    path, *rest = text.split(":")
    access = devices.ANY
    if rest and rest[-1] and not rest[-1].strip("rwm"):
        access = rest.pop()
    if not path.startswith("/") or len(rest) > 1 or any(not each.startswith("/") for each in rest):
        raise InvalidArgument(
            f"device {text[:80]!r} is neither /dev/NAME[:/dev/PLACE][:rwm] nor a CDI name such as nvidia.com/gpu=0"
        )
    return path, rest[0] if rest else "", access


def _gpu_names(gpus: str) -> list[str]:
    """Return the CDI devices of `--gpus all`, a number, or `device=0,1`."""
    from windlass_oci import cdi

    known, problems = cdi.registry(cdi.DIRECTORIES)
    kind = next((kind for kind in GPU_KINDS if any(name.startswith(f"{kind}=") for name in known)), "")
    if not kind:
        reasons = f" ({'; '.join(problems)[:300]})" if problems else ""
        where = " or ".join(cdi.DIRECTORIES)
        raise NotFound(f"--gpus needs a CDI spec of GPUs in {where}{reasons}; `nvidia-ctk cdi generate` makes one")
    words = gpus.strip('"').removeprefix("device=")
    if words == gpus.strip('"'):
        if words == "all":
            return [f"{kind}=all"]
        if not words.isdecimal():
            raise InvalidArgument(f"--gpus {gpus[:60]!r} is not all, a number or device=0,1")
        single = sorted(name for name in known if name.startswith(f"{kind}=") and name.rpartition("=")[2].isdigit())
        if len(single) < int(words):
            raise NotFound(f"--gpus {words}: {len(single)} GPUs are known")
        return single[: int(words)]
    return [f"{kind}={each}" for each in words.split(",")]
