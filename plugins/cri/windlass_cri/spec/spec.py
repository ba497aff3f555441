"""The OCI spec of a container, from its image and what the kubelet wants (docs/containerd 5.7)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Runtime, RuntimeConfig
from windlass_cri.pods.files import PodFiles
from windlass_cri.record import NAMESPACE, Pod
from windlass_cri.spec.classes import refuse_classes
from windlass_cri.spec.devices import set_devices
from windlass_cri.spec.globs import glob_matches
from windlass_cri.spec.mounts import Ability, set_mounts, unified_cgroups
from windlass_cri.spec.resources import Host, cgroups_path, set_resources
from windlass_cri.spec.security import set_apparmor, set_capabilities, set_paths, set_seccomp
from windlass_cri.spec.selinux import Labels, relabelling
from windlass_cri.spec.userns import UserNamespace, of_container
from windlass_images.manifests import ImageConfig
from windlass_oci.defaults import PATH, default_spec
from windlass_oci.runtime_spec import Namespace, Spec

ANNOTATION = "io.kubernetes.cri."
OWN_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class Plan:
    """What a spec is made of."""

    pod: Pod
    files: PodFiles
    id: str
    config: cri.ContainerConfig
    image: ImageConfig
    runtime: Runtime
    settings: RuntimeConfig
    volumes: Iterable[cri.Mount] = ()
    """Mounts for the volumes that the image declares."""
    features: cri.RuntimeHandlerFeatures | None = None
    """What the runtime is able to do, None for everything."""
    base: Spec | None = None
    """What the operator wants specs to be made from, None for the default; it is changed."""
    target: int = 0
    """The process whose PID namespace the container joins, for the mode TARGET."""
    labels: Labels = field(default_factory=Labels)
    """Of SELinux."""
    host: Host = field(default_factory=Host.read)


def build(plan: Plan) -> Spec:
    """Return the spec but for its user, whom the image's accounts name. Raises Unknown, OSError."""
    pod, config = plan.pod, plan.config
    security = config.linux.security_context
    check(plan)
    spec = start(plan)
    process, linux = spec["process"], spec["linux"]
    process["args"] = arguments(config, plan.image)
    process["env"] = environment(pod, config, plan.image)
    process["cwd"] = config.working_dir or plan.image.working_dir or "/"
    process["noNewPrivileges"] = security.no_new_privs
    process["oomScoreAdj"] = oom_score_adj(config, plan.settings.restrict_oom_score_adj)
    if config.tty:
        process["terminal"] = True
    spec["root"] = {"path": "rootfs", "readonly": security.readonly_rootfs}
    spec["annotations"] = all_annotations(plan)
    default = linux["cgroupsPath"]
    if plan.runtime.options.get("SystemdCgroup"):
        default = f"system.slice:cri-containerd:{plan.id}"  # systemd takes nothing but units
    linux["cgroupsPath"] = cgroups_path(pod.config.linux.cgroup_parent, plan.id, default)
    user = of_container(pod, security.namespace_options)
    linux["namespaces"] = namespaces(pod, security, plan.target)
    if user is not None:
        linux["namespaces"].append({"type": "user", "path": pod.namespaces["user"]})
        linux["uidMappings"], linux["gidMappings"] = [user.uids], [user.gids]
    able = Ability(plan.features, plan.runtime.cgroup_writable, user, relabelling(plan.labels.mount))
    set_mounts(spec, pod, plan.files, config, plan.volumes, able)
    if plan.labels.mount:
        process["selinuxLabel"], linux["mountLabel"] = plan.labels.process, plan.labels.mount
    set_devices(
        spec,
        config,
        host=not plan.runtime.privileged_without_host_devices,
        every=plan.runtime.privileged_without_host_devices_all_devices_allowed,
        owned=plan.settings.device_ownership_from_security_context,
    )
    refuse_classes(plan.settings.containerd, pod.config, config)
    set_resources(spec, config.linux.resources, plan.host, huge_pages=limits_huge_pages(plan.settings, plan.host))
    set_security(spec, security, plan.settings)
    return spec


def start(plan: Plan) -> Spec:
    """Return the operator's spec, or the default one without limits: the daemon's own are those of containers."""
    if plan.base is not None:
        plan.base["linux"]["cgroupsPath"] = f"/{NAMESPACE}/{plan.id}"
        return plan.base
    spec = default_spec(NAMESPACE, plan.id)
    spec["process"].pop("rlimits", None)
    return spec


def oom_score_adj(config: cri.ContainerConfig, restrict: bool) -> int:
    """Return what the client wants; never less than the daemon's own if ``restrict``."""
    own = int(OWN_SCORE.read_text()) if restrict else -1000
    return max(config.linux.resources.oom_score_adj, own)


def limits_huge_pages(settings: RuntimeConfig, host: Host) -> bool:
    """Tell whether limits for huge pages have an effect, or at least have to be refused."""
    tolerated = settings.tolerate_missing_hugetlb_controller and not host.huge_pages
    return not settings.disable_hugetlb_controller and not tolerated


def needs_features(config: cri.ContainerConfig, user: UserNamespace | None) -> bool:
    """Tell whether a container needs what not every runtime is able to do."""
    return user is not None or any(
        each.recursive_read_only or each.uidMappings or each.gidMappings for each in config.mounts
    )


def set_security(spec: Spec, security: cri.LinuxContainerSecurityContext, settings: RuntimeConfig) -> None:
    """Set what the container may do. Raises Unknown."""
    set_capabilities(spec["process"], security)
    set_paths(spec, security, default=settings.disable_proc_mount)
    set_seccomp(spec, security, settings.unset_seccomp_profile)
    set_apparmor(spec["process"], security, settings.disable_apparmor)


def check(plan: Plan) -> None:
    """Refuse what a container of this pod cannot have. Raises Unknown."""
    pod, config = plan.pod, plan.config
    security = config.linux.security_context
    if security.privileged and not pod.config.linux.security_context.privileged:
        raise Unknown("no privileged container allowed in sandbox")
    if plan.runtime.cgroup_writable and not unified_cgroups():
        raise Unknown("cgroup_writable is only supported on cgroup v2: writing to version 1 is a way to the host")
    if security.supplemental_groups_policy not in cri.SupplementalGroupsPolicy.values():
        raise Unknown(f"SupplementalGroupsPolicy {security.supplemental_groups_policy} does not exist")


def arguments(config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the arguments: a command drops the image's, arguments alone follow its entrypoint. Raises Unknown."""
    if config.command:
        return [*config.command, *config.args]
    entrypoint = [] if list(image.entrypoint) == [""] else list(image.entrypoint)
    found = [*entrypoint, *(config.args or image.command)]
    if not found:
        raise Unknown("no command specified: neither the container nor its image has one")
    return found


def environment(pod: Pod, config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the environment: PATH, TERM and HOSTNAME, then the image's variables, then the client's.

    The first three are replaced in their places. Any other that is there twice stays twice, as in containerd; the last
    one counts.
    """
    first = {"PATH": PATH}
    if config.tty:
        first["TERM"] = "xterm"
    first["HOSTNAME"] = pod.config.hostname or os.uname().nodename
    given = [entry.partition("=") for entry in image.env]
    pairs = [(key, value) for key, equals, value in given if key and equals]
    pairs += [(each.key, each.value.decode(errors="surrogateescape")) for each in config.envs]
    first.update((key, value) for key, value in pairs if key in first)
    return [f"{key}={value}" for key, value in [*first.items(), *(each for each in pairs if each[0] not in first)]]


def namespaces(pod: Pod, security: cri.LinuxContainerSecurityContext, target: int = 0) -> list[Namespace]:
    """Return the namespaces: its own, the pod's by their paths, or none for the node's. Raises Unknown."""
    kinds: dict[str, Namespace] = {
        "net": {"type": "network"},
        "ipc": {"type": "ipc"},
        "uts": {"type": "uts"},
    }
    found: list[Namespace] = [{"type": "mount"}]
    found += [{**kind, "path": pod.namespaces[name]} for name, kind in kinds.items() if name in pod.namespaces]
    wanted, pods = security.namespace_options.pid, pod.namespace_options.pid
    if wanted == cri.CONTAINER:
        found.append({"type": "pid"})
    elif wanted == cri.TARGET:
        found.append({"type": "pid", "path": f"/proc/{target}/ns/pid"})
    elif pods != cri.NODE:  # a container sees the host's processes only if its pod does
        if "pid" not in pod.namespaces:
            raise Unknown(f"pod {pod.id} shares no PID namespace, which its container is to join; recreate the pod")
        found.append({"type": "pid", "path": pod.namespaces["pid"]})
    if unified_cgroups() and not security.privileged:
        found.append({"type": "cgroup"})
    return found


def all_annotations(plan: Plan) -> dict[str, str]:
    """Return what plugins and runtimes read of a container of CRI, and what its runtime lets through."""
    passed = passed_on(plan.runtime.pod_annotations, plan.pod.config.annotations)
    return passed | passed_on(plan.runtime.container_annotations, plan.config.annotations) | own_annotations(plan)


def own_annotations(plan: Plan) -> dict[str, str]:
    """Return the annotations of docs/containerd 5.14."""
    pod, config = plan.pod, plan.config
    metadata = pod.config.metadata
    values = {
        "container-type": "container",
        "sandbox-id": pod.id,
        "sandbox-name": metadata.name,
        "sandbox-namespace": metadata.namespace,
        "sandbox-uid": metadata.uid,
        "container-name": config.metadata.name,
        "image-name": config.image.user_specified_image or config.image.image,
    }
    return {f"{ANNOTATION}{key}": value for key, value in values.items()}


def passed_on(patterns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that a runtime's configuration lets through."""
    return {key: value for key, value in given.items() if any(glob_matches(each, key) for each in patterns)}
