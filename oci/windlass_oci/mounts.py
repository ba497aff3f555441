"""Mounts of a container, and the network that it shares with the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Mount, Spec


HOST_FILES = ("/etc/hosts", "/etc/resolv.conf")


def bind(source: str, destination: str, *options: str) -> Mount:
    """Return a mount that shows ``source`` at ``destination``, with all that is mounted below it."""
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", *options]}


def use_host_network(spec: Spec) -> None:
    """Leave the container in the host's network, with its host names and resolvers."""
    linux = spec["linux"]
    linux["namespaces"] = [each for each in linux.get("namespaces", []) if each["type"] != "network"]
    spec["mounts"] += [bind(path, path, "ro") for path in HOST_FILES]


def depth(path: str) -> int:
    """Return how many parts a path has, so that mounts do not hide those below them."""
    return os.path.normpath(path).replace("//", "/").count("/")
