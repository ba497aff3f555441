"""Who a container's process runs as, by CRI's rules (docs/containerd/cri-facts, 32 and 33)."""

from __future__ import annotations

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_local.launch import Rootfs
from windlass_oci.runtime_spec import User


async def user_of(rootfs: Rootfs, security: cri.LinuxContainerSecurityContext) -> User:
    """Return user and groups: the client's, else the image's; with the image's groups unless the policy is Strict.

    Raises Unknown for a group without a user, and as `windlass_oci.users.find_user`.
    """
    name = security.run_as_username
    if not name and security.HasField("run_as_user"):
        name = str(security.run_as_user.value)
    if security.HasField("run_as_group"):
        if not name:
            raise Unknown(f'user group "{security.run_as_group.value}" is specified without user')
        name = f"{name}:{security.run_as_group.value}"
    found = await rootfs.user(name)
    groups = {found.gid, *security.supplemental_groups}
    if security.supplemental_groups_policy != cri.SupplementalGroupsPolicy.Strict:
        groups |= set(found.additional)
    return {"uid": found.uid, "gid": found.gid, "additionalGids": sorted(groups)}
