"""Stored credentials: docker's config.json, and the helpers that it names."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path

from windlass.contracts.transfer import Credentials
from windlass.errors import FailedPrecondition
from windlass_images.manifests import parse_object
from windlass_registry import helpers

Ask = Callable[[str, str], Credentials | None]
"""Returns the credentials for a host, given also the reference; None is to try without."""

LIMIT = 1 << 20
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
HUB = frozenset({"docker.io", "registry-1.docker.io", "index.docker.io"})


def docker_config() -> Path:
    """Return where docker keeps its configuration for this user."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


class DockerConfig:
    """A ``config.json``, read anew at each question."""

    def __init__(self, path: Path) -> None:
        """Read the file at ``path``; without a file there are no credentials."""
        self._path = path

    def ask(self, host: str, reference: str = "") -> Credentials | None:
        """Return the credentials for ``host``. Raises FailedPrecondition for a broken file or helper."""
        return self.find(host)[0]

    def find(self, host: str) -> tuple[Credentials | None, str]:
        """Return the credentials for ``host``, and where they come from."""
        document = self.document()
        helper = self.helper(host, document)
        key = DOCKER_HUB_KEY if host in HUB else host
        if helper:
            return helpers.get(helper, key, str(self._path)), f"docker-credential-{helper}, named in {self._path}"
        for name, entry in _object(document, "auths").items():
            if isinstance(entry, dict) and entry and (name == key or self.names(name, host)):
                return self._entry(entry, name), f"{self._path}: auths"
        return None, f"nothing in {self._path}"

    def helper(self, host: str, document: dict[str, object]) -> str:
        """Return the helper that a document names for ``host``, empty for none."""
        special = _object(document, "credHelpers")
        found = special.get(host) or (_of_hub(special) if host in HUB else None) or document.get("credsStore")
        return found if isinstance(found, str) else ""

    def names(self, key: str, host: str) -> bool:
        """Return whether a key of ``auths`` means ``host``."""
        return _bare(key) == host

    def document(self) -> dict[str, object]:
        """Return all that the file says. Raises FailedPrecondition if it cannot be read."""
        try:
            with self._path.open("rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FailedPrecondition(f"{self._path} cannot be read: {error.strerror}") from None
        if len(data) > LIMIT:
            raise FailedPrecondition(f"{self._path} is longer than {LIMIT} bytes")
        return parse_object(data, str(self._path))

    def _entry(self, entry: dict[str, object], name: str) -> Credentials | None:
        token = entry.get("identitytoken")
        if isinstance(token, str) and token:
            return Credentials("", token)
        auth = entry.get("auth")
        if not isinstance(auth, str) or not auth:
            return None
        try:
            username, colon, secret = base64.b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise FailedPrecondition(f'{self._path}: auth of "{name[:200]}" is not base64 of user:password')
        return Credentials(username, secret)


def _of_hub(special: dict[str, object]) -> object:
    return special.get("docker.io") or special.get(DOCKER_HUB_KEY)


def _object(document: dict[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _bare(name: str) -> str:
    """Return the host of a key of ``auths``, which older versions wrote as a URL."""
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]
