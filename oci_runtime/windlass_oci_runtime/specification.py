"""Reads a bundle's `config.json`, and checks that each field that is known has its type.

Fields that the specification does not know are ignored, as it demands. What is known and not built is refused by name.
"""

from __future__ import annotations

import json
import os

from windlass.errors import FailedPrecondition, InvalidArgument, Unimplemented
from windlass_oci_runtime.shapes import SPEC, checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_oci_runtime.json_types import Document

MOST = 16 << 20
"""Bytes of a `config.json`."""

NOT_BUILT = ("solaris", "windows", "vm", "zos", "freebsd")
LINUX_NOT_BUILT = ("intelRdt", "netDevices")

MOST_UMASK = 0o777
NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")

IPC_SETTINGS = frozenset(
    f"kernel.{name}" for name in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
)


def load(bundle: str) -> Document:
    """Return the specification of a bundle. Raises FailedPrecondition, InvalidArgument, Unimplemented."""
    path = f"{bundle}/config.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FailedPrecondition(f"{path}: {(error.strerror or '').lower()}; the bundle needs it") from None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise InvalidArgument(f"{path} has more than {MOST >> 20} MB; remove what is not needed from it")
    return parse(text, path)


def parse(text: bytes, where: str = "config.json") -> Document:
    """Return a specification. Raises InvalidArgument with the field, Unimplemented."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{where} is not JSON: {error}") from None
    spec: Document = checked(found, SPEC, f"{where}: ")
    _check(spec, where)
    return spec


def _check(spec: Document, where: str) -> None:
    version = spec.get("ociVersion", "")
    if not version.startswith("1."):
        raise InvalidArgument(f"{where}: ociVersion {version[:20]!r} is not one of 1.x")
    linux = spec.setdefault("linux", {})
    for name in (*(n for n in NOT_BUILT if spec.get(n)), *(f"linux.{n}" for n in LINUX_NOT_BUILT if linux.get(n))):
        raise Unimplemented(f"{where}: {name} is not supported; remove it, or use another OCI runtime")
    if not spec.get("root", {}).get("path"):
        raise InvalidArgument(f"{where}: root.path is missing")
    _check_namespaces(linux.get("namespaces", []), where)
    _check_settings(spec, where)
    places = [("root.path", spec["root"]["path"]), ("linux.cgroupsPath", linux.get("cgroupsPath", ""))]
    for number, mount in enumerate(spec.get("mounts", [])):
        if not mount.get("destination"):
            raise InvalidArgument(f"{where}: mounts[{number}].destination is missing")
        places.append((f"mounts[{number}].destination", mount["destination"]))
    for name, place in places:
        if "\0" in place:
            raise InvalidArgument(f"{where}: {name} has a NUL byte")
    if "process" not in spec:
        raise InvalidArgument(f"{where}: process is missing")
    check_process(spec["process"], f"{where}: process")


def _check_namespaces(namespaces: list[Document], where: str) -> None:
    kinds = [each.get("type", "") for each in namespaces]
    for kind in kinds:
        if kind not in NAMESPACES:
            raise InvalidArgument(f"{where}: linux.namespaces has type {kind[:40]!r}, which Linux does not know")
        if kinds.count(kind) > 1:
            raise InvalidArgument(f"{where}: linux.namespaces has {kind} twice")
    if "mount" not in kinds:
        raise InvalidArgument(f"{where}: linux.namespaces has no mount namespace; without one the host's would change")
    for each in namespaces:
        if (path := each.get("path")) and not path.startswith("/"):
            raise InvalidArgument(f"{where}: linux.namespaces: path {path[:80]!r} of {each['type']} is not absolute")


def _check_settings(spec: Document, where: str) -> None:
    """Refuse what would be set for the host."""
    kinds = {each["type"]: each.get("path", "") for each in spec["linux"].get("namespaces", [])}
    for name in ("hostname", "domainname"):
        if spec.get(name) and "uts" not in kinds:
            raise InvalidArgument(f"{where}: unable to set {name} without a private UTS namespace in linux.namespaces")
    for setting in spec["linux"].get("sysctl", {}):
        name = setting if "." in setting.partition("/")[0] else setting.replace("/", ".")
        kind = _namespace_of(name)
        if name == "kernel.hostname":
            raise InvalidArgument(f"{where}: linux.sysctl {name} is what hostname is for")
        if not kind or kind not in kinds or (kind == "network" and _is_own(kinds[kind])):
            raise InvalidArgument(
                f"{where}: linux.sysctl {setting[:80]!r} is not in a separate kernel namespace: the host's would change"
            )


def _namespace_of(setting: str) -> str:
    """Return in which namespace a setting of /proc/sys is, "" for the host's."""
    if setting in IPC_SETTINGS or setting.startswith("fs.mqueue."):
        return "ipc"
    return {"kernel.domainname": "uts"}.get(setting, "network" if setting.startswith("net.") else "")


def _is_own(path: str) -> bool:
    try:
        return bool(path) and os.path.samefile(path, "/proc/self/ns/net")
    except OSError:
        return False  # it is opened later, with an error that says more


def check_process(process: Document, where: str) -> None:
    """Raise InvalidArgument for a process that cannot be executed."""
    if not process.get("args"):
        raise InvalidArgument(f"{where}.args is empty")
    if not process.get("cwd", "").startswith("/"):
        raise InvalidArgument(f"{where}.cwd {process.get('cwd', '')[:80]!r} is not an absolute path")
    for name, words in (("args", process["args"]), ("env", process.get("env") or []), ("cwd", [process["cwd"]])):
        if any("\0" in word for word in words):
            raise InvalidArgument(f"{where}.{name} has a NUL byte")
    for word in process.get("env") or []:
        if "=" not in word[1:]:
            raise InvalidArgument(f"{where}.env has {word[:80]!r}, which is not NAME=value")
    if not 0 <= (process.get("user") or {}).get("umask", 0) <= MOST_UMASK:
        raise InvalidArgument(f"{where}.user.umask {process['user']['umask']} is not one of Linux")
