"""Credentials for registries, from where docker keeps them: helpers, or ~/.docker/config.json itself.

Nothing of them is ever on a command line, in a message or in a log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windlass.errors import InvalidArgument, PermissionDenied, Unavailable
from windlass.transfer import Credentials

DOCKER_HUB = "https://index.docker.io/v1/"
HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
FILE_LIMIT = 1 << 20
HELPER_TIMEOUT = 30.0
HELPER = re.compile(r"[a-zA-Z0-9_-]{1,64}")
TOKEN_USER = "<token>"  # noqa: S105 - what helpers say instead of a user name
NOT_FOUND = b"credentials not found"


def config_file() -> Path:
    """Return where docker's configuration is."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


async def from_docker(host: str, reference: str = "", path: Path | None = None) -> Credentials | None:
    """Return what docker would give to a registry, None if it has nothing. Raises InvalidArgument, Unavailable."""
    path = path or config_file()
    document = await asyncio.to_thread(_read, path)
    helpers, store = document.get("credHelpers") or {}, document.get("credsStore") or ""
    for name in _names(host):
        helper = (helpers.get(name) if isinstance(helpers, dict) else None) or store
        if helper and (found := await _ask(str(helper), name)):
            return found
        auths = document.get("auths")
        if (
            isinstance(auths, dict)
            and isinstance(auths.get(name), dict)
            and (found := _stored(auths[name], name, path))
        ):
            return found
    return None


def _names(host: str) -> list[str]:
    """Return what docker may have called a registry when somebody logged in."""
    if host in HUB_NAMES:
        return [DOCKER_HUB, *sorted(HUB_NAMES)]
    return [host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]


# Any: JSON
def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PermissionDenied(f"{path} cannot be read: {error.strerror}") from None
    try:
        document = json.loads(data) if len(data) <= FILE_LIMIT else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path} is no JSON object of at most {FILE_LIMIT} bytes")
    return document


def _stored(entry: Mapping[str, Any], name: str, path: Path) -> Credentials | None:
    token, username, password = (entry.get(key) or "" for key in ("identitytoken", "username", "password"))
    if token:
        return Credentials(secret=str(token))
    if entry.get("auth"):
        try:
            decoded = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidArgument(f"{path}: auth of {name} is not base64 of user:password") from None
        username, _, password = decoded.partition(":")
    return Credentials(str(username), str(password).rstrip("\0")) if username else None


async def _ask(helper: str, name: str) -> Credentials | None:
    """Ask a docker-credential helper, which gets the registry on its standard input."""
    if not HELPER.fullmatch(helper):
        raise InvalidArgument(f"credential helper {helper[:80]!r} has a name that is none")
    program = f"docker-credential-{helper}"
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(program, "get", stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise Unavailable(f"credential helper {program} cannot be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(HELPER_TIMEOUT):
            out, err = await process.communicate(name.encode())
    except TimeoutError:
        raise Unavailable(f"credential helper {program} did not answer within {HELPER_TIMEOUT:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode:
        if NOT_FOUND in out + err:
            return None
        raise Unavailable(f"credential helper {program} failed with exit code {process.returncode}")
    return _parse_helper(out, program)


def _parse_helper(out: bytes, program: str) -> Credentials | None:
    try:
        document = json.loads(out)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Unavailable(f"credential helper {program} answered something else than Username and Secret") from None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        return None
    return Credentials("" if username == TOKEN_USER else username, secret)
