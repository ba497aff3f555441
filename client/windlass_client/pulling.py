"""Pulls an image for a container: by the daemon, or by ourselves where the daemon cannot (containerd 1.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windlass.contracts.transfer import Stored, Unpack
from windlass.contracts.values import Platform
from windlass.errors import Unimplemented
from windlass_client.namespaces import SNAPSHOTTER
from windlass_client.transfer import Remote
from windlass_images.unpack import Progress

if TYPE_CHECKING:
    from windlass.contracts.transfer import Credentials
    from windlass_client.client import Client


async def pull(client: Client, name: str, platform: Platform, snapshotter: str, progress: Progress) -> str:
    """Pull and unpack an image and return its name. Raises as `Transfer.pull`."""
    from windlass_client.commands.transfers import Shown

    chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
    stored = Stored(name, platforms=(platform,), unpacks=(Unpack(platform, chosen),))
    try:
        async with client.lease(label="pull") as leased:
            await leased.transfer.pull(Remote(name, _ask), stored, Shown(progress))
    except Unimplemented:
        raise Unimplemented(
            f"this daemon cannot pull {name}: it has no transfer service, which containerd has since 1.7; "
            "pull it with ctr or nerdctl, or import an archive"
        ) from None
    return name


async def _ask(host: str, reference: str) -> Credentials | None:
    import asyncio

    from windlass_registry.credentials import DockerConfig, docker_config

    return await asyncio.to_thread(DockerConfig(docker_config()).ask, host, reference)
