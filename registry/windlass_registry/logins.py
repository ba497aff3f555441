"""Logging in and out: credentials are tried at their registry, and then kept where docker keeps them."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from windlass.contracts.transfer import Credentials
from windlass.errors import FailedPrecondition, Unavailable
from windlass_registry import failures, helpers, hostsfile, references
from windlass_registry.credentials import DOCKER_HUB_KEY, HUB, DockerConfig
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import DOCKER_HUB, Host, same_registry
from windlass_registry.session import Request, Session
from windlass_registry.tokens import Authorizer
from windlass_registry.transport import Transport

ANY = "windlass/login:latest"
"""A repository that needs not exist: only the top of the registry is asked."""


def registry_of(text: str) -> str:
    """Return the registry that a user names: a host, perhaps with a scheme and a path; docker's own without one."""
    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0]
    if not host or host in HUB:
        return DOCKER_HUB
    references.parse(f"{host}/{ANY}")
    return host


def key_of(registry: str) -> str:
    """Return what a registry is called in docker's configuration."""
    return DOCKER_HUB_KEY if registry in HUB else registry


def verify(registry: str, credentials: Credentials, roots: Sequence[Path], scheme: str = "") -> None:
    """Ask a registry whether it takes credentials. Raises Unauthenticated if it does not, Unavailable and others."""
    found = hostsfile.find(registry, roots, scheme)
    found.raise_errors()
    own = [host for host in found.hosts if same_registry(host.authority, registry)] or list(found.hosts[-1:])
    ways = _spoken(own[0])
    for host in ways:
        try:
            _ask(host, registry, credentials)
            return
        except HostFailure as error:
            # A host that has answered is not asked again in clear.
            if host is ways[-1] or error.kind is not Unavailable:
                raise error.kind(f"login at {registry}: {error}") from None


def _spoken(host: Host) -> list[Host]:
    """Return the ways in which a host may be asked: a local one speaks https, or else http."""
    if not host.falls_back:
        return [host]
    return [replace(host, scheme="https"), replace(host, tls=replace(host.tls, explicit=False))]


def _ask(host: Host, registry: str, credentials: Credentials) -> None:
    transport = Transport()
    try:
        reference = references.parse(f"{registry}/{ANY}")
        authorizer = Authorizer(transport, str(reference), lambda host, reference: credentials, failures.USER_AGENT)
        session = Session(transport, authorizer, reference, {}, None)
        with session.ask(host, Request("GET", url=f"{host.base}/", patient=False)) as answer:
            if answer.status >= 400:
                raise failures.of_answer(host, answer)
    finally:
        transport.close()


class Logins:
    """The credentials of a ``config.json``: changed whole, for its owner alone, and all else in it stays."""

    def __init__(self, path: Path) -> None:
        """Change the file at ``path``, which is made if it is not there."""
        self._path = path
        self._config = DockerConfig(path)

    def store(self, registry: str, credentials: Credentials) -> str:
        """Keep credentials by a helper, or in the file, and return where. Raises FailedPrecondition."""
        document = self._config.document()
        key = key_of(registry)
        helper = self._config.helper(registry, document)
        if helper:
            entry = {"ServerURL": key, "Username": credentials.username, "Secret": credentials.secret}
            helpers.run(helper, "store", json.dumps(entry), str(self._path))
            if key not in _auths(document):
                document["auths"] = {**_auths(document), key: {}}
                self._write(document)
            return f"docker-credential-{helper}"
        text = base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()
        document["auths"] = {**_auths(document), key: {"auth": text}}
        self._write(document)
        return str(self._path)

    def erase(self, registry: str) -> bool:
        """Forget the credentials for a registry; return whether there were any. Raises FailedPrecondition."""
        document = self._config.document()
        auths = _auths(document)
        keys = [name for name in auths if name == key_of(registry) or self._config.names(name, registry)]
        helper = self._config.helper(registry, document)
        held = bool(helper) and helpers.get(helper, key_of(registry), str(self._path)) is not None
        if held:
            helpers.run(helper, "erase", key_of(registry), str(self._path))
        if keys:
            document["auths"] = {name: entry for name, entry in auths.items() if name not in keys}
            self._write(document)
        return held or bool(keys)

    def _write(self, document: dict[str, object]) -> None:
        data = json.dumps(document, indent="\t", ensure_ascii=False) + "\n"
        # A link to the file in another place, as users of dotfiles have, stays a link.
        path = Path(os.path.realpath(self._path))
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(data)
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise FailedPrecondition(f"{self._path} cannot be written: {error.strerror}") from None


def _auths(document: dict[str, object]) -> dict[str, object]:
    found = document.get("auths")
    return found if isinstance(found, dict) else {}
