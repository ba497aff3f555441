"""What a container may do: capabilities, seccomp, AppArmor, SELinux (docs/containerd 5.7)."""

from __future__ import annotations

import re
from pathlib import Path

from windlass.errors import InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.spec import apparmor
from windlass_oci import capabilities, seccomp
from windlass_oci.defaults import bounded
from windlass_oci.runtime_spec import Process, Spec

Profile = cri.SecurityProfile
LOCALHOST = "localhost/"
SECCOMP = Path("/proc/sys/kernel/seccomp")
SELINUX_LEVEL = re.compile(r"s\d(-s\d)?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?")


def set_capabilities(process: Process, security: cri.LinuxContainerSecurityContext) -> None:
    """Give the capabilities that the client adds and drops; a privileged container has all. None is ambient.

    CRI's names are without CAP_. As in containerd, adding CAP_SYS_ADMIN gives nothing, so that it does not pass by a
    policy that forbids SYS_ADMIN; dropping CAP_SYS_ADMIN drops it.
    """
    if security.privileged:
        process["capabilities"] = bounded(capabilities.current())
        return
    add = [each.upper() for each in security.capabilities.add_capabilities]
    drop = [each.upper() for each in security.capabilities.drop_capabilities]
    known, default = capabilities.every(), process["capabilities"]["bounding"]
    base = [] if "ALL" in drop else (capabilities.current() if "ALL" in add else default)
    found = dict.fromkeys([*base, *(f"CAP_{each}" for each in add)])
    dropped = {f"CAP_{each.removeprefix('CAP_')}" for each in drop}
    process["capabilities"] = bounded([each for each in found if each in known and each not in dropped])


def set_paths(spec: Spec, security: cri.LinuxContainerSecurityContext, default: bool) -> None:
    """Set which paths are masked and read-only: what the client says, else the ``default`` of all containers."""
    linux = spec["linux"]
    if security.privileged:
        linux["maskedPaths"], linux["readonlyPaths"] = [], []
    elif not default:
        linux["maskedPaths"], linux["readonlyPaths"] = list(security.masked_paths), list(security.readonly_paths)


def set_seccomp(spec: Spec, security: cri.LinuxContainerSecurityContext, unset: str) -> None:
    """Filter system calls as the client asks, or as ``unset`` says when it does not. Raises Unknown."""
    if security.privileged:
        spec["linux"].pop("seccomp", None)  # the operator's own spec may have one
        return
    wanted = _chosen(security, "seccomp", security.seccomp_profile_path or unset)
    if wanted is None or wanted.profile_type == Profile.Unconfined:
        return
    if not SECCOMP.exists():
        raise Unknown("seccomp is not supported")
    if wanted.profile_type == Profile.RuntimeDefault:
        spec["linux"]["seccomp"] = seccomp.profile(spec["process"]["capabilities"]["bounding"])
        return
    path = wanted.localhost_ref.removeprefix(LOCALHOST)
    if not path.startswith("/"):
        raise Unknown(f'cannot load seccomp profile "{path}": open {path}: the path is not absolute')
    try:
        spec["linux"]["seccomp"] = seccomp.read_profile(Path(path))
    except InvalidArgument as error:
        raise Unknown(f'cannot load seccomp profile "{path}": open {path}: {error}') from None


def set_apparmor(process: Process, security: cri.LinuxContainerSecurityContext, disabled: bool = False) -> None:
    """Confine the process by the profile that the client names, else the default one. Blocks; raises Unknown."""
    wanted = _chosen(security, "apparmor", security.apparmor_profile)
    if wanted is not None and wanted.profile_type == Profile.Unconfined:
        process.pop("apparmorProfile", None)  # the operator's own spec may have one
        return
    if disabled or not apparmor.enabled():
        if wanted is not None:
            raise Unknown("apparmor is not supported")
        return
    if wanted is not None and wanted.profile_type == Profile.Localhost:
        name = wanted.localhost_ref.removeprefix(LOCALHOST)
        if name not in apparmor.loaded():
            raise Unknown(f"apparmor profile not found {name}")
        process["apparmorProfile"] = name
    elif not security.privileged:
        process["apparmorProfile"] = apparmor.need_default()


def check_selinux(options: cri.SELinuxOption) -> None:
    """Refuse a level that is not one. Raises Unknown."""
    level = options.level
    if level and not SELINUX_LEVEL.fullmatch(level):
        raise Unknown(f'the format of "level" "{level[:100]}" is not correct')


def _chosen(security: cri.LinuxContainerSecurityContext, name: str, path: str) -> Profile | None:
    """Return the profile of a field, else that of a path in its old form; None for neither. Raises Unknown."""
    profile = getattr(security, name) if security.HasField(name) else _of_path(path)  # type: ignore[arg-type]
    if profile is None:
        return None
    if profile.profile_type not in Profile.ProfileType.values():
        raise Unknown(f"{name} unknown ProfileType")
    if profile.profile_type != Profile.Localhost and profile.localhost_ref:
        raise Unknown(f"{name} config invalid LocalhostRef must only be set if ProfileType is Localhost")
    return profile


def _of_path(path: str) -> Profile | None:
    if not path:
        return None
    if path in ("runtime/default", "docker/default"):
        return Profile(profile_type=Profile.RuntimeDefault)
    if path == "unconfined":
        return Profile(profile_type=Profile.Unconfined)
    if not path.startswith(LOCALHOST):
        raise Unknown(f'invalid profile "{path[:200]}"')
    return Profile(profile_type=Profile.Localhost, localhost_ref=path.removeprefix(LOCALHOST))
