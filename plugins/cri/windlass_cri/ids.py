"""IDs and names of pods and containers: an ID may be cut short, a name is taken once (docs/containerd 5)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Generic, TypeVar

from windlass.errors import FailedPrecondition, NotFound, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri

T = TypeVar("T")


def new_id() -> str:
    """Return a new ID: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def pod_name(metadata: cri.PodSandboxMetadata) -> str:
    """Return the name that no other pod may have."""
    return f"{metadata.name}_{metadata.namespace}_{metadata.uid}_{metadata.attempt}"


def container_name(metadata: cri.ContainerMetadata, pod: cri.PodSandboxMetadata) -> str:
    """Return the name that no other container may have."""
    return f"{metadata.name}_{pod.name}_{pod.namespace}_{pod.uid}_{metadata.attempt}"


class Index(Generic[T]):
    """Things by their IDs; used on the loop."""

    def __init__(self, kind: str) -> None:
        """Hold nothing; ``kind`` is what messages call a thing."""
        self._kind = kind
        self._things: dict[str, T] = {}

    def add(self, id: str, thing: T) -> None:
        """Hold a thing."""
        self._things[id] = thing

    def remove(self, id: str) -> None:
        """Hold it no longer; one that is not there is not an error."""
        self._things.pop(id, None)

    def __iter__(self) -> Iterator[T]:
        """Yield all, in the order in which they were added."""
        return iter(list(self._things.values()))

    def __contains__(self, id: str) -> bool:
        """Tell whether the thing with this ID is there."""
        return id in self._things

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._things)

    def full_id(self, prefix: str) -> str:
        """Return the one ID that begins with ``prefix``. Raises NotFound, and Unknown for none or several."""
        if prefix in self._things:
            return prefix
        if not prefix:
            raise Unknown(f"the ID of a {self._kind} is missing: prefix can't be empty")
        found = [id for id in self._things if id.startswith(prefix)]
        if not found:
            raise NotFound(f'{self._kind} "{prefix[:100]}" does not exist: not found')
        if len(found) > 1:
            raise Unknown(f'"{prefix[:100]}" is the beginning of {len(found)} IDs; give more of it')
        return found[0]

    def get(self, prefix: str) -> T:
        """Return the thing whose ID begins with ``prefix``. Raises as `full_id`."""
        return self._things[self.full_id(prefix)]

    def find(self, prefix: str) -> T | None:
        """Return the thing, or None; Unknown as `full_id`."""
        try:
            return self.get(prefix)
        except NotFound:
            return None


class Names:
    """Which ID has a name. A name is taken before its pod or container is made, and until that is removed."""

    def __init__(self, kind: str, hint: str = "") -> None:
        """Have none taken; ``hint`` is what a message has before the name."""
        self._kind, self._hint = kind, hint
        self._ids: dict[str, str] = {}

    def take(self, name: str, id: str) -> None:
        """Take a name. Raises FailedPrecondition when another has it, in the words that clients look for."""
        owner = self._ids.setdefault(name, id)
        if owner != id:
            raise FailedPrecondition(
                f'failed to reserve {self._kind} name "{name}": {self._hint}name "{name}" is reserved for "{owner}"'
            )

    def give_back(self, name: str, id: str) -> None:
        """Free a name, if ``id`` has it."""
        if self._ids.get(name) == id:
            del self._ids[name]
