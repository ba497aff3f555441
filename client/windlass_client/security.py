"""`--cap-add`, `--cap-drop` and `--security-opt`, as docker has them: what a container's processes may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass_oci import capabilities, seccomp
from windlass_oci.defaults import bounded

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Spec


def restrict(spec: Spec, add: Iterable[str], drop: Iterable[str], options: Iterable[str]) -> None:
    """Set a container's capabilities and security options; without the option, seccomp's default profile."""
    held = capabilities.changed(spec["process"]["capabilities"]["bounding"], add, drop)
    spec["process"]["capabilities"] = bounded(held)
    words = dict(map(_word, options))
    for key, value in {"seccomp": "builtin", **words}.items():
        OPTIONS[key](spec, value)


def _word(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if key not in OPTIONS or not (value or (key == "no-new-privileges" and not equals)):
        raise InvalidArgument(f"security option {option[:80]!r} is not known; known are {', '.join(KNOWN)}")
    return key, value


def _seccomp(spec: Spec, value: str) -> None:
    if value == "unconfined":
        spec["linux"].pop("seccomp", None)
    elif value == "builtin":
        spec["linux"]["seccomp"] = seccomp.profile(spec["process"]["capabilities"]["bounding"])
    else:
        spec["linux"]["seccomp"] = seccomp.read_profile(Path(value))


def _no_new_privileges(spec: Spec, value: str) -> None:
    if value not in ("", "true", "false"):
        raise InvalidArgument(f"security option no-new-privileges={value[:80]!r} is neither true nor false")
    spec["process"]["noNewPrivileges"] = value != "false"


def _apparmor(spec: Spec, value: str) -> None:
    if value == "unconfined":
        spec["process"].pop("apparmorProfile", None)
    else:
        spec["process"]["apparmorProfile"] = value


def _system_paths(spec: Spec, value: str) -> None:
    if value != "unconfined":
        raise InvalidArgument(f"security option systempaths={value[:80]!r} can only be unconfined")
    spec["linux"]["maskedPaths"] = []
    spec["linux"]["readonlyPaths"] = []


OPTIONS: Mapping[str, Callable[[Spec, str], None]] = {
    "seccomp": _seccomp,
    "no-new-privileges": _no_new_privileges,
    "apparmor": _apparmor,
    "systempaths": _system_paths,
}
KNOWN = (
    "seccomp=FILE, seccomp=builtin, seccomp=unconfined",
    "no-new-privileges=true or false",
    "apparmor=PROFILE, apparmor=unconfined",
    "systempaths=unconfined",
)
