"""The entry point for callers: a client, which knows the hosts' configuration and returns repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass_registry import failures, hostsfile, references
from windlass_registry.credentials import Ask
from windlass_registry.repository import Repository
from windlass_registry.session import Session, Trace
from windlass_registry.tokens import Authorizer
from windlass_registry.transport import Transport

CERTS_D = (Path("/etc/containerd/certs.d"), Path("/etc/docker/certs.d"))


def roots_of(text: str) -> tuple[Path, ...]:
    """Return the directories of a ``config_path``, which are separated by colons."""
    return tuple(Path(root) for root in text.split(":") if root)


class Client:
    """Keeps connections open between repositories; any number of threads may use it."""

    def __init__(self, roots: Sequence[Path] = CERTS_D) -> None:
        """Look for ``hosts.toml`` files below ``roots``, unless a repository says otherwise."""
        self._roots = tuple(roots)
        self._transport = Transport()

    def repository(
        self,
        reference: str,
        *,
        ask: Ask | None = None,
        roots: Sequence[Path] | None = None,
        scheme: str = "",
        headers: Mapping[str, str] | None = None,
        trace: Trace | None = None,
    ) -> Repository:
        """Return the repository of a reference; no request is sent yet.

        ``ask`` is called for credentials when a host wants some, ``scheme`` is that of a registry
        without configuration, ``headers`` go to the registry's hosts. Raises InvalidArgument (reference),
        FailedPrecondition (``hosts.toml``).
        """
        parsed = references.parse(reference)
        found = hostsfile.find(parsed.host, self._roots if roots is None else roots, scheme)
        found.raise_errors()
        authorizer = Authorizer(self._transport, reference, ask, failures.USER_AGENT)
        session = Session(self._transport, authorizer, parsed, headers or {}, trace)
        return Repository(parsed, found.hosts, session)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._transport.close()
