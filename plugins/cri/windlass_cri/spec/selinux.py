"""Labels of SELinux for containers, on hosts that have it (docs/containerd 5.7).

Source: selinux(8), lxc_contexts(5). A container's process and its files share a level: two categories that no other
pod has keep pods from each other's files.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.spec.security import check_selinux

ATTRIBUTE = "security.selinux"
CATEGORIES = 1024
NEVER = frozenset(
    (
        *("/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64"),
        *("/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr"),  # noqa: S108 - the host's
        *("/var", "/var/lib", "/var/log"),
    )
)
"""Places of the host that no container's label is given to, whoever asks."""


@dataclass(frozen=True)
class Context:
    """A label in its parts."""

    user: str
    role: str
    type: str
    level: str

    @classmethod
    def parse(cls, text: str) -> Context:
        """Parse ``user:role:type:level``. Raises Unknown."""
        parts = text.split(":", 3)
        if len(parts) != 4 or not all(parts):
            raise Unknown(f'"{text[:200]}" is not a label of SELinux')
        return cls(*parts)

    def __str__(self) -> str:
        """Return the label."""
        return f"{self.user}:{self.role}:{self.type}:{self.level}"


@dataclass(frozen=True)
class Labels:
    """What a container's process and its files are labelled with; empty texts for nothing."""

    process: str = ""
    mount: str = ""


class Selinux:
    """Chooses labels; ``taken`` says which labels pods have."""

    def __init__(self, enabled: bool, categories: int = CATEGORIES, root: Path = Path("/")) -> None:
        """Choose none unless ``enabled``; ``root`` is where the host's files are."""
        self._enabled = enabled
        self._categories = categories or CATEGORIES
        self._root = root

    def for_pod(self, security: cri.LinuxSandboxSecurityContext, taken: Iterable[str]) -> Labels:
        """Return a pod's labels, with a level that is its own unless the client sets one. Raises Unknown."""
        return self._labels(security.selinux_options, taken, "")

    def for_container(self, security: cri.LinuxContainerSecurityContext, pod: str, taken: Iterable[str] = ()) -> Labels:
        """Return a container's labels: its own options', else its pod's. A privileged process has none."""
        found = self._labels(security.selinux_options, taken, pod)
        return replace(found, process="") if security.privileged else found

    def _labels(self, wanted: cri.SELinuxOption, taken: Iterable[str], inherited: str) -> Labels:
        check_selinux(wanted)
        if not self._enabled:
            return Labels()
        asked = [wanted.user, wanted.role, wanted.type, wanted.level]
        if not (self._root / "sys/fs/selinux/enforce").exists():
            if any(asked):
                raise Unknown(
                    "this host has no SELinux, so the container cannot have the label that it asks for; set "
                    "enable_selinux = false to leave labels out"
                )
            return Labels()
        process, file = self._defaults()
        if not any(asked) and inherited:
            process = Context.parse(inherited)
        else:
            level = wanted.level or self._free_level(process.level, taken)
            process = Context(
                wanted.user or process.user, wanted.role or process.role, wanted.type or process.type, level
            )
        return Labels(str(process), str(replace(file, level=process.level)))

    def _defaults(self) -> tuple[Context, Context]:
        """Return the labels that the host's policy has for containers. Raises Unknown."""
        try:
            config = _table(self._root / "etc/selinux/config")
            contexts = _table(self._root / "etc/selinux" / config["SELINUXTYPE"] / "contexts/lxc_contexts")
            return Context.parse(contexts["process"]), Context.parse(contexts["file"])
        except (OSError, KeyError) as error:
            raise Unknown(f"the host's SELinux policy has no labels for containers: {error}") from error

    def _free_level(self, level: str, taken: Iterable[str]) -> str:
        used = {Context.parse(each).level for each in taken if each}
        base = level.partition(":")[0]
        for _ in range(10_000):
            first, second = sorted(secrets.SystemRandom().sample(range(self._categories), 2))
            found = f"{base}:c{first},c{second}"
            if found not in used:
                return found
        raise Unknown(f"all levels of {self._categories} categories are taken; raise selinux_category_range")


def _table(path: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip().strip('"') for key, equals, value in pairs if equals}


def relabelling(label: str) -> Callable[[str], None] | None:
    """Return what gives a path of the host a label, None without one."""
    return (lambda path: relabel(path, label)) if label else None


def relabel(path: str, label: str, set_attribute: Callable[[str, bytes], None] | None = None) -> None:
    """Give a file, or a directory with all below, a label; links are not followed. Blocks; raises Unknown."""
    if os.path.normpath(path) in NEVER:
        raise Unknown(f'relabel "{path}" with "{label}" failed: SELinux relabeling of {path} is not allowed')
    setting = set_attribute or _set
    try:
        setting(path, label.encode())
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                setting(f"{directory}/{name}", label.encode())
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise Unknown(f'relabel "{path}" with "{label}" failed: {error.strerror}') from error


def _set(path: str, label: bytes) -> None:
    os.setxattr(path, ATTRIBUTE, label, follow_symlinks=False)


def labelled(mounts: Iterable[Mount], label: str) -> tuple[Mount, ...]:
    """Return the mounts of a root file system whose files all have a label."""
    if not label:
        return tuple(mounts)
    option = f'context="{label}"'
    return tuple(replace(each, options=(*each.options, option)) if each.type == "overlay" else each for each in mounts)
