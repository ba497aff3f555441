"""Finds the signatures of an image in the registry that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windlass.errors import NotFound

if TYPE_CHECKING:
    from windlass_images.signatures import Signature
    from windlass_registry.client import Client


class Finder:
    """Asks registries, with the hosts and credentials that the operator has configured for it."""

    def __init__(self, config_path: str, credentials: str) -> None:
        """Take directories with ``hosts.toml`` files, and a docker ``config.json`` or nothing."""
        self._config_path = config_path
        self._credentials = credentials
        self._client: Client | None = None

    def find(self, name: str, digest: str) -> list[Signature]:
        """Return the signatures that the registry keeps with an image. Raises the errors of a registry's failures."""
        # Here, since few daemons have rules that want signatures.
        from windlass_images import manifests, signatures
        from windlass_registry import references
        from windlass_registry.client import Client, roots_of
        from windlass_registry.credentials import DockerConfig

        image = references.parse(name)
        place = f"{image.locator}:{signatures.tag_of(digest)}"
        ask = DockerConfig(Path(self._credentials)).ask if self._credentials else None
        self._client = self._client or Client(roots_of(self._config_path))
        repository = self._client.repository(place, ask=ask)
        try:
            desc = repository.resolve()
        except NotFound:
            return []
        manifest = manifests.parse_manifest(repository.manifest(desc), f"signatures of {name}", desc.media_type)
        found = []
        for layer in manifest.layers[: signatures.MAX_SIGNATURES]:
            signature = signatures.signature_of(layer)
            if signature is not None:
                with repository.blob(layer) as blob:
                    statement = b"".join(iter(lambda: blob.read(signatures.STATEMENT_LIMIT), b""))
                found.append(signatures.Signature(statement, signature))
        return found

    async def close(self) -> None:
        """Close idle connections."""
        if self._client is not None:
            self._client.close()
