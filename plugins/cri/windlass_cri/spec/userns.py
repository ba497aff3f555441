"""User namespaces of pods: what their containers' users and groups are on the host (docs/containerd 5.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_GID_MAPPING, LABEL_UID_MAPPING
from windlass.errors import Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Pod
from windlass_local.inside import LocalNamespace
from windlass_oci.runtime_spec import IDMapping, Spec

MAPPINGS = ("uidmap=", "gidmap=")
REMAP = "remap-ids"
"""A capability of snapshotters."""


@dataclass(frozen=True)
class UserNamespace:
    """What a pod's user namespace maps: one range of users, and one of groups."""

    uids: IDMapping
    gids: IDMapping

    @property
    def uidmap(self) -> str:
        """The range of users as text, ``container:host:length``."""
        return _text(self.uids)

    @property
    def gidmap(self) -> str:
        """The range of groups as text."""
        return _text(self.gids)

    @property
    def labels(self) -> dict[str, str]:
        """What a snapshot is labelled with whose files are to belong to the namespace's users."""
        return {LABEL_UID_MAPPING: self.uidmap, LABEL_GID_MAPPING: self.gidmap}

    def apply(self, mount: cri.Mount) -> None:
        """Let a mount show the owners of its files as they are, through the namespace."""
        for fields, mapping in ((mount.uidMappings, self.uids), (mount.gidMappings, self.gids)):
            fields.add(container_id=mapping["containerID"], host_id=mapping["hostID"], length=mapping["size"])


def wanted(options: cri.NamespaceOption) -> UserNamespace | None:
    """Return the user namespace that a client wants, None for the host's. Raises Unknown."""
    if not options.HasField("userns_options"):
        return None
    asked = options.userns_options
    uids, gids = _range("UID", asked.uids), _range("GID", asked.gids)
    mode = cri.NamespaceMode.Name(asked.mode) if asked.mode in cri.NamespaceMode.values() else str(asked.mode)
    if asked.mode == cri.NODE:
        if uids or gids:
            raise _refused(f'can\'t use user namespace mode "{mode}" with mappings')
        return None
    if asked.mode != cri.POD:
        raise _refused(f'unsupported user namespace mode: "{mode}"')
    if not uids or not gids:
        raise _refused(f'can\'t use user namespace mode "{mode}" without UID and GID mappings')
    return UserNamespace(uids, gids)


def check(features: cri.RuntimeHandlerFeatures, handler: str) -> None:
    """Refuse a user namespace where the runtime cannot map mounts: its files would be others'. Raises Unknown."""
    if not features.user_namespaces:
        raise Unknown(
            f'runtime handler "{handler}" does not support user namespaces: its OCI runtime has no ID-mapped mounts; '
            "use runc 1.2 or crun, or set hostUsers: true"
        )


def of_container(pod: Pod, options: cri.NamespaceOption) -> UserNamespace | None:
    """Return the user namespace of a container, which has to be its pod's. Raises Unknown."""
    found, pods = wanted(options), wanted(pod.namespace_options)
    if found != pods:
        raise Unknown(
            "user namespace config for sandbox is different from container: "
            f"the pod's is {_shown(pods)}, the container's {_shown(found)}"
        )
    if found is not None and "user" not in pod.namespaces:
        raise Unknown(f"pod {pod.id} has no user namespace, which its container is to join; recreate the pod")
    return found


async def snapshot_labels(user: UserNamespace | None, namespace: LocalNamespace, snapshotter: str) -> dict[str, str]:
    """Return the labels of a snapshot whose files belong to a user namespace. Raises Unknown where it has none."""
    if user is None:
        return {}
    if REMAP not in await namespace.snapshots.capabilities(snapshotter):
        raise Unknown(
            f"snapshotter {snapshotter} cannot give a snapshot's files to a user namespace on this machine; "
            "use overlayfs on Linux 5.19 or later, or set hostUsers: true"
        )
    return user.labels


def without_mappings(mounts: Sequence[Mount]) -> list[Mount]:
    """Return mounts that show the owners that the image's files have in the image."""
    return [
        replace(each, options=tuple(option for option in each.options if not option.startswith(MAPPINGS)))
        for each in mounts
    ]


def io_owner(spec: Spec) -> tuple[int, int] | None:
    """Return who a container's streams have to belong to, so that it can open /dev/stdout; None is the host's root.

    Raises Unknown for a user that the container's user namespace does not map.
    """
    user, linux = spec["process"].get("user"), spec["linux"]
    if user is None or not linux.get("uidMappings"):
        return None
    return _on_host(user["uid"], linux["uidMappings"]), _on_host(user["gid"], linux["gidMappings"])


def _on_host(id: int, mappings: Sequence[IDMapping]) -> int:
    for each in mappings:
        if each["containerID"] <= id < each["containerID"] + each["size"]:
            return each["hostID"] + id - each["containerID"]
    raise Unknown(f"the container runs as {id}, which its user namespace does not map")


def _range(name: str, given: Sequence[cri.IDMapping]) -> IDMapping | None:
    if len(given) > 1:
        raise _refused(f"{name} mapping: only one mapping line supported, got {len(given)} mapping lines")
    if not given:
        return None
    each = given[0]
    if each.length < 1:
        raise _refused(f"{name} mapping: invalid mapping length: {each.length}")
    if each.container_id or each.host_id + each.length > 2**32 - 1:
        raise _refused(f"{name} mapping: it has to begin at 0 in the container and to end below {2**32 - 1}")
    return {"containerID": each.container_id, "hostID": each.host_id, "size": each.length}


def _refused(reason: str) -> Unknown:
    return Unknown(f"user namespace configuration: {reason}")


def _text(mapping: IDMapping) -> str:
    return f"{mapping['containerID']}:{mapping['hostID']}:{mapping['size']}"


def _shown(namespace: UserNamespace | None) -> str:
    return "none" if namespace is None else f"uids {namespace.uidmap} and gids {namespace.gidmap}"
