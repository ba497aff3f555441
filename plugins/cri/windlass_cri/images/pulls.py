"""Pulls, by the transferrer: names that an image gets, credentials, and clients that want the same (5.10)."""

from __future__ import annotations

import base64
import binascii

from windlass.contracts.transfer import Credentials, Progress, Registry, Stored, Transferrer, Unpack
from windlass.errors import Error, Unknown
from windlass.records import dataclass
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Images
from windlass_cri.images.joined import Joined
from windlass_cri.record import NAMESPACE
from windlass_images import platforms
from windlass_images.dockersave import full_name
from windlass_images.imagetree import resolve
from windlass_registry.references import Reference, parse

DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class From:
    """How images are pulled."""

    host_dirs: str = ""
    """Directories with ``hosts.toml`` files, separated by colons; empty for those of the transferrer."""
    patience: float | None = None
    """Seconds in which a registry has to bring something; None is as the transferrer has it."""


class Pulls:
    """Pulls images into CRI's namespace."""

    def __init__(self, images: Images, transfer: Transferrer, settings: From) -> None:
        """Tell ``images`` of each."""
        self._images = images
        self._transfer = transfer
        self._settings = settings
        self._joined: Joined[str] = Joined()

    async def pull(self, reference: str, auth: cri.AuthConfig, snapshotter: str) -> str:
        """Pull an image, unpack it into ``snapshotter``, and return its ID. Clients that pull the same wait together.

        Raises Unknown for a bad reference or bad credentials, and as the transferrer.
        """
        try:
            parsed = parse(full_name(reference))
        except Error as error:
            text = f'failed to parse image reference "{reference[:200]}": invalid reference format: {error}'
            raise Unknown(text) from None
        # Who has other credentials is not served with what these bring.
        key = (str(parsed), snapshotter, auth.SerializeToString(deterministic=True))
        return await self._joined.run(key, lambda: self._pull(parsed, auth, snapshotter))

    async def _pull(self, reference: Reference, auth: cri.AuthConfig, snapshotter: str) -> str:
        name = str(reference)

        async def ask(host: str, _: str) -> Credentials | None:
            return credentials(auth, host)

        where, platform = self._settings, platforms.host()
        source = Registry(name, ask, host_dir=where.host_dirs, patience=where.patience)
        labels = self._images.labels(name)
        stored = Stored(name, labels, (platform,), unpacks=(Unpack(platform, snapshotter),))
        try:
            await self._transfer.transfer(NAMESPACE, source, stored, _ignore)
        except Error as error:
            raise type(error)(f'failed to pull and unpack image "{name}": {error}') from error
        return await self._named(reference, labels)

    async def _named(self, reference: Reference, labels: dict[str, str]) -> str:
        """Give a pulled image the names by which CRI knows it, and return its ID."""
        namespace, name = self._images.namespace, str(reference)
        row = await namespace.images.get(name)
        id = (await resolve(namespace, name, platforms.host())).manifest.config.digest
        for other in (id, f"{reference.locator}@{row.target.digest}", name):
            if other != name:
                await self._images.put(other, row, labels)
            await self._images.update(other)
        return id


def _ignore(progress: Progress) -> None:
    """Show nothing: CRI has no place for it."""


def credentials(auth: cri.AuthConfig, host: str) -> Credentials | None:
    """Return what the kubelet gave for a registry; None for another host than it gave it for. Raises Unknown."""
    server = auth.server_address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if server and server != host and not {server, host} <= DOCKER_HUB:
        return None
    if auth.username:
        return Credentials(auth.username, auth.password)
    if auth.identity_token:
        return Credentials("", auth.identity_token)
    if auth.auth:
        return _decoded(auth.auth)
    return None


def _decoded(text: str) -> Credentials:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unknown("the credentials for the registry are not base64") from None
    if not colon:
        raise Unknown("the credentials for the registry are not user:password in base64")
    return Credentials(user, password.rstrip("\0"))
