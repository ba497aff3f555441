"""Who a container's process runs as, by CRI's rules (docs/containerd/cri-facts, 32 and 33)."""

from __future__ import annotations

from windlass.errors import Error, NotFound, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_local.launch import Rootfs
from windlass_oci.runtime_spec import User
from windlass_oci.users import MAX_ID, Accounts, find_user, is_numeric

MOST_IMAGES = 64
LARGEST = 64 << 10
"""Characters of accounts that are kept."""


class KnownAccounts:
    """The accounts of images, which never change.

    A look into an image takes a mount namespace, and so as long as the node has mounts.
    """

    def __init__(self) -> None:
        """Know none yet."""
        self._kept: dict[str, Accounts] = {}

    async def of(self, rootfs: Rootfs) -> Accounts:
        """Return the accounts of a container's image. Raises as `Rootfs.accounts`."""
        chain = rootfs.image.chain_id
        if chain in self._kept:
            return self._kept[chain]
        found = await rootfs.accounts()
        if chain and len(found.passwd) + len(found.group) <= LARGEST:
            self._kept[chain] = found
            if len(self._kept) > MOST_IMAGES:
                del self._kept[next(iter(self._kept))]
        return found


async def user_of(rootfs: Rootfs, security: cri.LinuxContainerSecurityContext, known: KnownAccounts) -> User:
    """Return user and groups: the client's, else the image's. Raises Unknown."""
    name = name_of(security) or rootfs.image.user
    strict = security.supplemental_groups_policy == cri.SupplementalGroupsPolicy.Strict
    try:
        accounts = Accounts() if strict and is_numeric(name) else await known.of(rootfs)
        return with_groups(name, accounts, security)
    except NotFound as error:
        raise Unknown(f"no users found: {error}") from None
    except Unknown:
        raise
    except Error as error:
        raise Unknown(str(error)) from None


def name_of(security: cri.LinuxContainerSecurityContext) -> str:
    """Return who the client wants, as ``user`` or ``user:group``; empty for the image's user. Raises Unknown."""
    name = security.run_as_username
    if not name and security.HasField("run_as_user"):
        name = str(security.run_as_user.value)
    if not security.HasField("run_as_group"):
        return name
    if not name:
        raise Unknown(f'user group "{security.run_as_group.value}" is specified without user')
    return f"{name}:{security.run_as_group.value}"


def with_groups(name: str, accounts: Accounts, security: cri.LinuxContainerSecurityContext) -> User:
    """Return a user with the client's groups, and the image's unless the policy is Strict. Raises as `find_user`."""
    found = find_user(name, accounts)
    for group in security.supplemental_groups:
        if not 0 <= group <= MAX_ID:  # a number that wraps around would be another group, such as root's
            raise Unknown(f"supplemental group {group} is not from 0 to {MAX_ID}")
    groups = {found.gid, *security.supplemental_groups}
    if security.supplemental_groups_policy != cri.SupplementalGroupsPolicy.Strict:
        groups |= set(found.additional)
    return {"uid": found.uid, "gid": found.gid, "additionalGids": sorted(groups)}
