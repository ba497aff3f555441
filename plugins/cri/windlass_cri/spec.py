"""The OCI spec of a container, from its image and what the kubelet wants (docs/containerd 5.7)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from windlass.errors import InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.files import PodFiles
from windlass_cri.record import NAMESPACE, Pod
from windlass_cri.resources import set_resources
from windlass_images.manifests import ImageConfig
from windlass_oci import capabilities, seccomp
from windlass_oci.defaults import CAPABILITIES, PATH, bounded, default_spec
from windlass_oci.process import set_terminal
from windlass_oci.runtime_spec import Device, Mount, Namespace, Process, Spec

ANNOTATION = "io.kubernetes.cri."
DEVICES = Path("/dev")


def build(pod: Pod, files: PodFiles, id: str, config: cri.ContainerConfig, image: ImageConfig) -> Spec:
    """Return the spec but for its user, whom the image's accounts name. Raises Unknown, InvalidArgument, OSError."""
    spec = default_spec(NAMESPACE, id)
    security = config.linux.security_context
    process, linux = spec["process"], spec["linux"]
    process["args"] = arguments(config, image)
    process["env"] = environment(pod, config, image)
    process["cwd"] = config.working_dir or image.working_dir or "/"
    process["noNewPrivileges"] = security.no_new_privs
    process.pop("rlimits", None)
    if config.tty:
        set_terminal(process)
    spec["root"] = {"path": "rootfs", "readonly": security.readonly_rootfs}
    spec["annotations"] = own_annotations(pod, id, config)
    parent = pod.config.linux.cgroup_parent
    linux["cgroupsPath"] = f"{parent}/{id}" if parent else f"/{NAMESPACE}/{id}"
    linux["namespaces"] = namespaces(pod, security.namespace_options)
    linux["maskedPaths"], linux["readonlyPaths"] = list(security.masked_paths), list(security.readonly_paths)
    spec["mounts"] = mounts(pod, files, config, spec["mounts"])
    set_capabilities(process, security)
    set_devices(spec, config)
    set_seccomp(spec, security)
    set_resources(spec, config.linux.resources)
    return spec


def arguments(config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the arguments: a command drops the image's, arguments alone follow its entrypoint."""
    if config.command:
        return [*config.command, *config.args]
    entrypoint = [] if list(image.entrypoint) == [""] else list(image.entrypoint)
    found = [*entrypoint, *(config.args or image.command)]
    if not found:
        raise Unknown("no command specified: neither the container nor its image has one")
    return found


def environment(pod: Pod, config: cri.ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the environment: PATH and HOSTNAME, the image's variables, the client's; the later one of a name wins."""
    hostname = pod.config.hostname or os.uname().nodename
    values = {"PATH": PATH, "HOSTNAME": hostname}
    for entry in image.env:
        key, equals, value = entry.partition("=")
        if key and equals:
            values[key] = value
    for each in config.envs:
        values[each.key] = each.value.decode(errors="surrogateescape")
    return [f"{key}={value}" for key, value in values.items()]


def namespaces(pod: Pod, wanted: cri.NamespaceOption) -> list[Namespace]:
    """Return the namespaces: its own, the pod's by their paths, or none for the node's."""
    found: list[Namespace] = [{"type": "mount"}]
    if "net" in pod.namespaces:
        found.append({"type": "network", "path": pod.namespaces["net"]})
    if "ipc" in pod.namespaces:
        found.append({"type": "ipc", "path": pod.namespaces["ipc"]})
    if "uts" in pod.namespaces:
        found.append({"type": "uts", "path": pod.namespaces["uts"]})
    if wanted.pid == cri.CONTAINER:
        found.append({"type": "pid"})
    elif wanted.pid == cri.POD:
        if "pid" not in pod.namespaces:
            raise Unknown(f"pod {pod.id} shares no PID namespace, which its container is to join; recreate the pod")
        found.append({"type": "pid", "path": pod.namespaces["pid"]})
    elif wanted.pid == cri.TARGET:
        raise Unknown("a container's PID namespace cannot be joined here yet")
    return found


def mounts(pod: Pod, files: PodFiles, config: cri.ContainerConfig, default: Sequence[Mount]) -> list[Mount]:
    """Return the mounts: the default ones, the pod's files, then the client's, each of which wins over those before."""
    found = {each["destination"]: each for each in default if each["destination"] != "/run"}
    mode = "ro" if config.linux.security_context.readonly_rootfs else "rw"
    shared = {"/etc/hostname": files.hostname, "/etc/hosts": files.hosts, "/etc/resolv.conf": files.resolv_conf}
    for place, path in shared.items():
        found[place] = bind(str(path), place, ["rbind", "rprivate", mode])
    shm = Path("/dev/shm") if pod.namespace_options.ipc == cri.NODE else files.shm  # noqa: S108 - the host's own
    found["/dev/shm"] = bind(str(shm), "/dev/shm", ["rbind", "rprivate", "rw"])  # noqa: S108 - in the container
    if config.linux.security_context.privileged:
        found["/sys"] = {**found["/sys"], "options": [each for each in found["/sys"]["options"] if each != "ro"]}
    cgroup = "rw" if config.linux.security_context.privileged else "ro"
    options = ["nosuid", "noexec", "nodev", "relatime", cgroup]
    found["/sys/fs/cgroup"] = {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": options,
    }
    asked = [_mount(each) for each in config.mounts]
    places = {each["destination"] for each in asked}
    if "/dev" in places:
        found = {place: each for place, each in found.items() if not place.startswith("/dev/")}
    kept = [each for place, each in found.items() if place not in places]
    return sorted([*kept, *asked], key=lambda each: each["destination"].rstrip("/").count("/"))


def bind(source: str, destination: str, options: list[str]) -> Mount:
    """Return a bind mount."""
    return {"destination": destination, "type": "bind", "source": source, "options": options}


PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}


def _mount(wanted: cri.Mount) -> Mount:
    """Return one of the client's mounts; a host path that is not there is made, as containerd makes it."""
    if not wanted.container_path:
        raise Unknown("a mount has no container_path")
    if wanted.HasField("image"):
        raise Unknown(f"image volume {wanted.container_path} cannot be mounted here yet")
    if wanted.recursive_read_only and not wanted.readonly:
        raise Unknown(f"mount {wanted.container_path} is recursive_read_only and not readonly; make it both")
    if not wanted.host_path:
        raise Unknown('failed to mkdir "": a mount has no host_path')
    source = Path(wanted.host_path)
    if not source.exists():
        source.mkdir(mode=0o755, parents=True)
    mode = ("rro" if wanted.recursive_read_only else "ro") if wanted.readonly else "rw"
    options = ["rbind", PROPAGATION.get(wanted.propagation, "rprivate"), mode]
    return bind(os.path.realpath(source), wanted.container_path, options)


def set_capabilities(process: Process, security: cri.LinuxContainerSecurityContext) -> None:
    """Give the capabilities that the client adds and drops; a privileged container has all."""
    if security.privileged:
        process["capabilities"] = bounded(capabilities.every())
        return
    wanted = security.capabilities
    add, drop = [each.upper() for each in wanted.add_capabilities], [each.upper() for each in wanted.drop_capabilities]
    base = [] if "ALL" in drop else (capabilities.every() if "ALL" in add else list(CAPABILITIES))
    known = set(capabilities.every())
    names = [_capability(each) for each in add if each != "ALL"]
    dropped = {_capability(each) for each in drop if each != "ALL"}
    found = [*base, *(each for each in names if each not in base)]
    process["capabilities"] = bounded([each for each in found if each in known and each not in dropped])


def _capability(name: str) -> str:
    return name if name.startswith("CAP_") else f"CAP_{name}"


def set_devices(spec: Spec, config: cri.ContainerConfig) -> None:
    """Give the devices that the client names; a privileged container has all of the host."""
    rules = spec["linux"]["resources"]["devices"]
    devices: list[Device] = []
    if config.linux.security_context.privileged:
        rules[:] = [{"allow": True, "access": "rwm"}]
        devices = [device(path, str(path)) for path in host_devices()]
    for each in config.devices:
        made = device(Path(os.path.realpath(each.host_path)), each.container_path or each.host_path)
        devices.append(made)
        rule = {"allow": True, "access": each.permissions, "type": made["type"]}
        rules.append({**rule, "major": made["major"], "minor": made["minor"]})  # type: ignore[typeddict-item] # as above
    if devices:
        spec["linux"]["devices"] = devices


def device(path: Path, place: str) -> Device:
    """Describe a device of the host. Raises Unknown for what is none."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unknown(f"device {path}: {error.strerror}") from None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise Unknown(f"{path} is not a device")
    return {
        "path": place,
        "type": "b" if stat.S_ISBLK(found.st_mode) else "c",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def host_devices() -> Iterable[Path]:
    """Yield the device files below /dev, but those that each container has of its own."""
    own = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"}
    for path in sorted(DEVICES.iterdir()):
        if path.name not in own and not path.is_symlink() and (path.is_char_device() or path.is_block_device()):
            yield path


def set_seccomp(spec: Spec, security: cri.LinuxContainerSecurityContext) -> None:
    """Filter system calls as the client asks; a privileged container has no filter."""
    wanted = security.seccomp
    if security.privileged or not security.HasField("seccomp"):
        return
    if wanted.profile_type == cri.SecurityProfile.RuntimeDefault:
        spec["linux"]["seccomp"] = seccomp.profile(spec["process"]["capabilities"]["bounding"])
    elif wanted.profile_type == cri.SecurityProfile.Localhost:
        path = wanted.localhost_ref.removeprefix("localhost/")
        try:
            spec["linux"]["seccomp"] = seccomp.read_profile(Path(path))
        except (OSError, InvalidArgument) as error:
            raise Unknown(f'cannot load seccomp profile "{path}": {error}') from None


def own_annotations(pod: Pod, id: str, config: cri.ContainerConfig) -> dict[str, str]:
    """Return what plugins and runtimes read of a container of CRI (docs/containerd 5.14)."""
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


def passed_on(patterns: Sequence[str], annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that a runtime's configuration lets through."""
    return {key: value for key, value in annotations.items() if any(fnmatchcase(key, each) for each in patterns)}
