"""Stored credentials: docker's config.json, and the helpers that it names."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from windlass.contracts.transfer import Credentials
from windlass.errors import FailedPrecondition
from windlass_images.manifests import parse_object

Ask = Callable[[str, str], Credentials | None]
"""Returns the credentials for a host, given also the reference; None is to try without."""

LIMIT = 1 << 20
HELPER_TIMEOUT = 30.0
HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_HUB = frozenset({"docker.io", "registry-1.docker.io", "index.docker.io"})


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
        document = self._read()
        helpers = _object(document, "credHelpers")
        helper = helpers.get(host) or (helpers.get("docker.io") if host in _HUB else None) or document.get("credsStore")
        key = DOCKER_HUB_KEY if host in _HUB else host
        if isinstance(helper, str) and helper:
            return self._run(helper, key), f"docker-credential-{helper}, named in {self._path}"
        for name, entry in _object(document, "auths").items():
            if isinstance(entry, dict) and (name == key or _bare(name) == host):
                return self._entry(entry, name), f"{self._path}: auths"
        return None, f"nothing in {self._path}"

    def _read(self) -> dict[str, object]:
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

    def _run(self, helper: str, key: str) -> Credentials | None:
        if not HELPER.fullmatch(helper):
            raise FailedPrecondition(f"{self._path} names a helper {helper[:80]!r}, which is not the name of a program")
        command = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [command, "get"], input=key.encode(), capture_output=True, timeout=HELPER_TIMEOUT, check=False
            )
        except FileNotFoundError:
            raise FailedPrecondition(f"{command}, which {self._path} names, is not installed") from None
        except subprocess.TimeoutExpired:
            raise FailedPrecondition(f"{command} did not end within {HELPER_TIMEOUT:.0f} s") from None
        text = done.stdout[:LIMIT].decode(errors="replace")
        if done.returncode:
            if "credentials not found" in text:
                return None
            raise FailedPrecondition(f"{command} failed: {' '.join(text.split())[:200]}")
        return _answer(text, command)


def _answer(text: str, command: str) -> Credentials | None:
    try:
        document = json.loads(text)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise FailedPrecondition(f"{command} did not answer with credentials") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise FailedPrecondition(f"{command} did not answer with credentials")
    return Credentials("" if username == "<token>" else username, secret)


def _object(document: dict[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _bare(name: str) -> str:
    """Return the host of a key of ``auths``, which older versions wrote as a URL."""
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]
