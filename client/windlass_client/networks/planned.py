"""What the network of one container needs on disk, in its record and in its spec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument
from windlass_client import labels
from windlass_client.networks import files, ports, record
from windlass_client.networks.record import HOOK, NetworkRecord, PortMapping
from windlass_oci import mounts as oci_mounts

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Hook, Hooks, Spec

LABEL_LIMIT = 4000
"""Bytes of a label's value; containerd takes 4096 with its key."""
HOOK_TIMEOUT = 60


@dataclass(frozen=True)
class Plan:
    """What one container's network needs on disk, in its record and in its spec."""

    directory: Path
    hostname: str
    hosts: str = ""
    resolv: str = ""
    record: NetworkRecord | None = None
    netns: str | None = ""
    """Empty is a new namespace, None the host's."""
    files_of: Path | None = None
    """The directory of another container, whose files this one has."""
    labels: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write the container's files and what its hooks read."""
        if self.files_of is None:
            files.write(self.directory, self.hosts, self.resolv, self.hostname)
        if self.record is not None:
            record.write(self.directory, self.record)

    def apply(self, spec: Spec) -> None:
        """Change a spec so that the container has this network."""
        linux, place = spec["linux"], self.files_of or self.directory
        others = [each for each in linux.get("namespaces", []) if each["type"] != "network"]
        if self.netns:
            others.append({"type": "network", "path": self.netns})
        elif self.netns is not None:
            others.append({"type": "network"})
        linux["namespaces"] = others
        spec["hostname"] = self.hostname
        taken = {each["destination"] for each in spec["mounts"]}
        for name in files.NAMES:
            if (target := f"/etc/{name}") not in taken and (place / name).exists():
                spec["mounts"].append(oci_mounts.bind(str(place / name), target))
        if self.record is not None:
            spec["hooks"] = self._hooks(spec.get("hooks", {}))

    def _hooks(self, before: Hooks) -> Hooks:
        from windlass_client.networks import settings

        program = str(settings.hook_program())

        def hook(step: str) -> Hook:
            arguments = [HOOK, step, str(self.directory)]
            return {"path": program, "args": arguments, "env": [f"PATH={settings.PATH}"], "timeout": HOOK_TIMEOUT}

        attach, detach = [hook("attach")], [hook("detach")]
        return {
            **before,
            "createRuntime": [*before.get("createRuntime", []), *attach],
            "poststop": [*before.get("poststop", []), *detach],
        }

    def undo(self) -> None:
        """Remove the files of a container that is not there after all."""
        for name in (*files.NAMES, record.FILE, record.LOCK):
            (self.directory / name).unlink(missing_ok=True)
        try:
            self.directory.rmdir()
        except OSError:
            pass  # others have files there


def network_labels(networks: Mapping[str, object], mappings: Sequence[PortMapping]) -> dict[str, str]:
    """Return the labels of a container's record. Raises InvalidArgument if they are too long for the daemon."""
    made = {labels.NETWORKS: json.dumps(networks)}
    if mappings:
        made[labels.PORTS] = json.dumps(ports.labelled(mappings))
    for key, value in made.items():
        if len(value) > LABEL_LIMIT:
            what = "ports" if key == labels.PORTS else "networks"
            raise InvalidArgument(f"too many {what} for the record of one container; use ranges, or --network host")
    return made
