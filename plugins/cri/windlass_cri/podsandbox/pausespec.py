"""The OCI spec of a pause container (docs/containerd 5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.pods.files import PodFiles
from windlass_cri.record import NAMESPACE, Pod
from windlass_cri.spec import userns
from windlass_cri.spec.mounts import SYS_OF_THE_HOST
from windlass_cri.spec.resources import cgroups_path
from windlass_cri.spec.security import check_selinux, set_seccomp
from windlass_cri.spec.spec import ANNOTATION, OWN_SCORE, passed_on
from windlass_cri.spec.users import name_of
from windlass_images.manifests import ImageConfig
from windlass_oci.defaults import default_spec
from windlass_oci.runtime_spec import Mount, Namespace, Spec

SHARES = 2
OOM_SCORE_ADJ = -998
"""Linux ends a pod's containers before what holds the pod."""
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
PING = "net.ipv4.ping_group_range"
READ_ONLY = ("rbind", "ro", "nosuid", "nodev", "noexec")


@dataclass(frozen=True)
class Plan:
    """What a spec is made of."""

    pod: Pod
    files: PodFiles
    image_name: str
    image: ImageConfig
    runtime: Runtime
    settings: RuntimeConfig
    sysctls: Mapping[str, str]
    """What the pod's configuration sets."""
    user_namespace: Path | None = None
    """The name of the one that owns its network namespace."""


def build(plan: Plan) -> Spec:
    """Return the spec but for its user, whom the image's accounts name. Raises Unknown, OSError."""
    config, image = plan.pod.config, plan.image
    security = config.linux.security_context
    spec = default_spec(NAMESPACE, plan.pod.id)
    process, linux = spec["process"], spec["linux"]
    process.pop("rlimits", None)
    process["args"] = [*image.entrypoint, *image.command]
    if not process["args"]:
        raise Unknown(f"sandbox image {plan.image_name} has neither an entrypoint nor a command; choose another one")
    process["env"] = list(image.env)
    process["cwd"] = image.working_dir or "/"
    process["oomScoreAdj"] = oom_score_adj(plan.settings.restrict_oom_score_adj)
    spec["root"] = {"path": "rootfs", "readonly": True}
    spec["hostname"] = config.hostname
    spec["annotations"] = all_annotations(plan)
    default = f"system.slice:cri-containerd:{plan.pod.id}" if plan.runtime.options.get("SystemdCgroup") else ""
    linux["cgroupsPath"] = cgroups_path(config.linux.cgroup_parent, plan.pod.id, default or linux["cgroupsPath"])
    linux["resources"]["cpu"] = {"shares": SHARES}
    user = userns.wanted(plan.pod.namespace_options)
    linux["namespaces"] = namespaces(plan, user is not None)
    if user is not None:
        linux["uidMappings"], linux["gidMappings"] = [user.uids], [user.gids]
    if found := sysctls(plan, user is not None):
        linux["sysctl"] = found
    spec["mounts"] = mounts(spec, plan, user is not None)
    # The fields of a pod's security have the names, and the rules, of a container's.
    set_seccomp(spec, of_container(security), plan.settings.unset_seccomp_profile)
    check_selinux(security.selinux_options)
    return spec


def of_container(security: cri.LinuxSandboxSecurityContext) -> cri.LinuxContainerSecurityContext:
    """Return what a pod's security means for its pause container."""
    made = cri.LinuxContainerSecurityContext(
        privileged=security.privileged,
        seccomp_profile_path=security.seccomp_profile_path,
        supplemental_groups=security.supplemental_groups,
        supplemental_groups_policy=cri.SupplementalGroupsPolicy.Strict,
    )
    for name in ("seccomp", "selinux_options", "run_as_user", "run_as_group"):
        if security.HasField(name):
            getattr(made, name).CopyFrom(getattr(security, name))
    return made


def user_name(plan: Plan) -> str:
    """Return who the client wants, else the image's user. Raises Unknown."""
    return name_of(of_container(plan.pod.config.linux.security_context)) or plan.image.user


def oom_score_adj(restrict: bool) -> int:
    """Return the score; never less than the daemon's own if ``restrict``."""
    return max(OOM_SCORE_ADJ, int(OWN_SCORE.read_text()) if restrict else OOM_SCORE_ADJ)


def all_annotations(plan: Plan) -> dict[str, str]:
    """Return the annotations of docs/containerd 5.14, and those that the runtime lets through."""
    config = plan.pod.config
    values = {
        "container-type": "sandbox",
        "sandbox-id": plan.pod.id,
        "sandbox-name": config.metadata.name,
        "sandbox-namespace": config.metadata.namespace,
        "sandbox-uid": config.metadata.uid,
        "sandbox-log-directory": config.log_directory,
        "podsandbox.image-name": plan.image_name,
    }
    if config.linux.HasField("resources"):
        limits = config.linux.resources
        values |= {
            "sandbox-cpu-period": str(limits.cpu_period),
            "sandbox-cpu-quota": str(limits.cpu_quota),
            "sandbox-cpu-shares": str(limits.cpu_shares),
            "sandbox-memory": str(limits.memory_limit_in_bytes),
        }
    passed = passed_on(plan.runtime.pod_annotations, config.annotations)
    return passed | {f"{ANNOTATION}{key}": value for key, value in values.items()}


def namespaces(plan: Plan, user: bool) -> list[Namespace]:
    """Return the namespaces: those that its containers are to share, but for the network's, which is there."""
    options = plan.pod.namespace_options
    found: list[Namespace] = [{"type": "mount"}]
    if options.pid != cri.NODE:
        found.append({"type": "pid"})
    if options.ipc != cri.NODE:
        found.append({"type": "ipc"})
    if not plan.pod.host_network:
        found += [{"type": "uts"}, {"type": "network", "path": plan.pod.data.netns}]
    if user and plan.user_namespace is not None:
        found.append({"type": "user", "path": str(plan.user_namespace)})
    elif user:
        found.append({"type": "user"})
    return found


def sysctls(plan: Plan, user: bool) -> dict[str, str]:
    """Return what is set in the pod's namespaces; a user namespace need not map all groups that may ping."""
    defaults = {} if plan.pod.host_network else {key: SYSCTLS[key] for key in SYSCTLS if not (user and key == PING)}
    return {**defaults, **plan.sysctls}


def mounts(spec: Spec, plan: Plan, user: bool) -> list[Mount]:
    """Return the default mounts, and what virtual machines make a pod's files from."""
    own = plan.pod.namespace_options.ipc != cri.NODE
    shm = str(plan.files.shm) if own else "/dev/shm"  # noqa: S108 - the host's own
    sources = {"/dev/shm": shm, "/etc/resolv.conf": str(plan.files.resolv_conf)}  # noqa: S108 - in the container
    added: list[Mount] = [
        {"source": source, "destination": at, "type": "bind", "options": list(READ_ONLY)}
        for at, source in sources.items()
    ]
    places = {*sources, "/run"}
    kept = [each for each in spec["mounts"] if each["destination"] not in places]
    for at, each in enumerate(kept):
        if each["destination"] != "/sys":
            continue
        if plan.pod.config.linux.security_context.privileged:
            each["options"] = ["rw" if option == "ro" else option for option in each["options"]]
        if user and plan.pod.host_network:
            kept[at] = SYS_OF_THE_HOST
    return [*kept, *added]
