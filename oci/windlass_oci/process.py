"""A process of a container: its arguments, environment, directory and user. Execs are processes too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from windlass.contracts.values import MAX_LABEL
from windlass.errors import InvalidArgument
from windlass_images.manifests import ImageConfig
from windlass_oci.defaults import PATH
from windlass_oci.users import User

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Process

RESERVED_LABELS = (
    "containerd.io/",
    "io.containerd",
    "io.cri-containerd",
    "io.windlass.",
    "windlass.client/",
    "com.docker.compose.",
)
"""Prefixes of labels by which daemons, CRI, `windlass` and compose know their containers and what to do with them."""


def apply_image(
    process: Process, image: ImageConfig, arguments: Sequence[str] = (), entrypoint: str | None = None
) -> None:
    """Take arguments, environment and directory of an image.

    ``arguments`` replace the image's command; another ``entrypoint`` drops that command too, and an empty one is none.
    """
    head = list(image.entrypoint) if entrypoint is None else [entrypoint] if entrypoint else []
    command = list(image.command) if entrypoint is None else []
    process["args"] = head + (list(arguments) or command)
    if not process["args"]:
        raise InvalidArgument("no arguments specified: the image has no command of its own, so give one")
    process["env"] = merge_env([f"PATH={PATH}"], image.env)
    process["cwd"] = image.working_dir or "/"


def merge_env(old: Sequence[str], new: Iterable[str]) -> list[str]:
    """Return an environment with changes: the later KEY=value wins, a bare KEY removes it."""
    values = dict(entry.partition("=")[::2] for entry in old)
    for entry in new:
        key, equals, value = entry.partition("=")
        if not key:
            raise InvalidArgument(f"environment entry {entry[:100]!r} has no name")
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    return [f"{key}={value}" for key, value in values.items()]


def set_cwd(process: Process, directory: str) -> None:
    """Start the process in a directory of the container."""
    if not directory.startswith("/"):
        raise InvalidArgument(f"working directory {directory!r} is not absolute")
    process["cwd"] = directory


def set_user(process: Process, user: User) -> None:
    """Run the process as ``user``; its groups always include the primary one (CVE-2023-25173)."""
    groups = list(dict.fromkeys([user.gid, *user.additional]))
    process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": groups}


def set_terminal(process: Process, term: str = "xterm") -> None:
    """Give the process a terminal."""
    process["terminal"] = True
    process["env"] = merge_env([f"TERM={term}"], process.get("env") or [])


def image_labels(image: ImageConfig) -> Mapping[str, str]:
    """Return the labels of an image that its containers may have: none that plugins act on (CVE-2026-53488)."""
    return {
        key: value
        for key, value in (image.labels or {}).items()
        if key and not key.startswith(RESERVED_LABELS) and len(key.encode()) + len(value.encode()) <= MAX_LABEL
    }
