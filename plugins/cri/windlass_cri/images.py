"""Images as CRI has them: pulled by the transferrer, known by the digest of their config (docs/containerd 5.10)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from windlass.contracts.images import Image as Row
from windlass.contracts.transfer import Credentials, Progress, Registry, Stored, Transferrer, Unpack
from windlass.errors import Error, NotFound, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import NAMESPACE
from windlass_images import platforms
from windlass_images.dockersave import full_name
from windlass_images.imagetree import Leaf, resolve
from windlass_local.inside import LocalNamespace
from windlass_registry.references import parse

MANAGED = {"io.cri-containerd.image": "managed"}


@dataclass
class Image:
    """An image: its ID is the digest of its config."""

    id: str
    names: list[str] = field(default_factory=list)
    """As the daemon's image store has them, but the ID."""
    size: int = 0
    user: str = ""
    stop_signal: str = ""
    digest: str = ""
    """Of what the names point to."""

    @property
    def tags(self) -> list[str]:
        """Names with a tag."""
        return sorted(name for name in self.names if "@" not in name)

    @property
    def digests(self) -> list[str]:
        """Names with a digest."""
        return sorted(name for name in self.names if "@" in name)


class Images:
    """The images of CRI's namespace."""

    def __init__(self, namespace: LocalNamespace, transfer: Transferrer, snapshotter: str) -> None:
        """Unpack into ``snapshotter``."""
        self.snapshotter = snapshotter
        self._namespace = namespace
        self._transfer = transfer
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}

    def all(self) -> list[Image]:
        """Return every image."""
        return list(self._images.values())

    async def refresh(self) -> None:
        """Read what the daemon's image store has."""
        rows = await self._namespace.images.list()
        images: dict[str, Image] = {}
        names: dict[str, str] = {}
        for row in rows:
            known = self._images.get(self._names.get(row.name, ""))
            if known is None or known.digest != row.target.digest:
                known = await self._read(row)
            if known is None:
                continue
            image = images.setdefault(
                known.id, Image(known.id, [], known.size, known.user, known.stop_signal, known.digest)
            )
            names[row.name] = image.id
            if row.name != image.id:
                image.names.append(row.name)
        self._images, self._names = images, names

    async def _read(self, row: Row) -> Image | None:
        try:
            leaf = await resolve(self._namespace, row.name, platforms.host())
        except Error:
            return None  # not for this machine, or not all there yet
        return Image(
            leaf.manifest.config.digest,
            size=_size(leaf),
            user=leaf.image.user,
            stop_signal=leaf.image.stop_signal,
            digest=row.target.digest,
        )

    def get(self, id: str) -> Image | None:
        """Return an image by its ID."""
        return self._images.get(id)

    def name_of(self, id: str) -> str:
        """Return a name by which the daemon's image store has an image. Raises NotFound."""
        image = self._images.get(id)
        if image is None:
            raise NotFound(f"image {id} does not exist")
        return next(iter([*image.tags, *image.digests]), id)

    def find(self, reference: str) -> Image | None:
        """Return an image by ID, by the beginning of its ID, or by a name; None without."""
        if not reference:
            raise Unknown('can not resolve "" locally: ambiguous digest string')
        for key in (reference, f"sha256:{reference}"):
            if key in self._images:
                return self._images[key]
        try:
            name = str(parse(full_name(reference)))
        except Error:
            name = ""  # which no image has
        if name in self._names:
            return self._images[self._names[name]]
        prefix = reference.removeprefix("sha256:")
        if len(prefix) < 64 and set(prefix) <= set("0123456789abcdef"):
            found = [image for id, image in self._images.items() if id.startswith(f"sha256:{prefix}")]
            if len(found) == 1:
                return found[0]
        return None

    async def resolve(self, reference: str) -> str:
        """Return the ID of an image that is here. Raises NotFound."""
        image = self.find(reference)
        if image is None:
            await self.refresh()
            image = self.find(reference)
        if image is None:
            raise NotFound(f'image "{reference[:200]}" is not here; pull it first')
        return image.id

    async def pull(self, reference: str, auth: cri.AuthConfig) -> str:
        """Pull an image and return its ID. Raises Unknown for a bad reference, and as the transferrer."""
        try:
            parsed = parse(full_name(reference))
        except Error as error:
            raise Unknown(f'failed to parse image reference "{reference[:200]}": {error}') from None

        name = str(parsed)

        async def ask(host: str, _: str) -> Credentials | None:
            return credentials(auth, host)

        unpack = Unpack(platforms.host(), self.snapshotter)
        stored = Stored(name, MANAGED, (platforms.host(),), unpacks=(unpack,))
        await self._transfer.transfer(NAMESPACE, Registry(name, ask), stored, _ignore)
        row = await self._namespace.images.get(name)
        leaf = await resolve(self._namespace, name, platforms.host())
        id = leaf.manifest.config.digest
        for other in {id, f"{parsed.locator}@{row.target.digest}"} - {name}:
            await self._namespace.images.put(other, row.target, MANAGED)
        await self.refresh()
        return id

    async def remove(self, reference: str) -> None:
        """Remove an image with all its names; one that is not here is not an error."""
        await self.refresh()
        image = self.find(reference)
        if image is None:
            return
        names = [*image.names, image.id]
        for name in names:
            try:
                await self._namespace.images.delete(name, sync=name == names[-1])
            except NotFound:
                pass
        await self.refresh()


def _ignore(progress: Progress) -> None:
    """Show nothing: CRI has no place for it."""


def _size(leaf: Leaf) -> int:
    parts = [leaf.target, leaf.manifest.config, *leaf.manifest.layers]
    return sum(part.size for part in parts)


def credentials(auth: cri.AuthConfig, host: str) -> Credentials | None:
    """Return what the kubelet gave for a registry; None for another host than it gave it for. Raises Unknown."""
    server = auth.server_address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if server and server != host:
        return None
    if auth.username:
        return Credentials(auth.username, auth.password)
    if auth.identity_token:
        return Credentials("", auth.identity_token)
    if auth.auth:
        try:
            user, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Unknown("the credentials for the registry are not base64") from None
        if not colon:
            raise Unknown("the credentials for the registry are not user:password in base64")
        return Credentials(user, password.rstrip("\0"))
    return None


def users(image: Image) -> tuple[int | None, str]:
    """Return an image's user as CRI shows it: a number or a name."""
    user = image.user.partition(":")[0]
    if user.isascii() and user.isdecimal() and len(user) < 19:
        return int(user), ""
    return None, user
