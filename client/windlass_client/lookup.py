"""Which container a name, an ID or the beginning of an ID means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from windlass.errors import InvalidArgument, NotFound
from windlass_client.labels import NAME

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SHOWN = 5


async def container(client: Client, word: str) -> Container:
    """Return the container that ``word`` names. Raises NotFound, and InvalidArgument if several IDs begin so."""
    if not WORD.fullmatch(word):
        raise NotFound(_missing(client.namespace, word))
    beginning = word.replace(".", "[.]")
    found = await client.containers.list(f"id~=^{beginning}", f'labels."{NAME}"=={word}')
    return choose(found, word, client.namespace)


def choose(containers: Iterable[Container], word: str, namespace: str) -> Container:
    """Return the one of ``containers`` that has the name, else the ID, else the only ID that begins with it.

    A name comes before an ID: after a rename, another container may have the name that was the first one's ID.
    """
    candidates: Sequence[Container] = list(containers)
    for match in (lambda each: name_of(each) == word, lambda each: each.id == word):
        for each in candidates:
            if match(each):
                return each
    begun = [each for each in candidates if each.id.startswith(word)]
    if not begun or not word:
        raise NotFound(_missing(namespace, word))
    if len(begun) > 1:
        some = ", ".join(sorted(each.id for each in begun)[:SHOWN])
        raise InvalidArgument(f'several containers have IDs that begin with "{word}": {some}; type more of the ID')
    return begun[0]


def name_of(container: Container) -> str:
    """Return the name that people call a container by."""
    return container.labels.get(NAME) or container.id


def _missing(namespace: str, word: str) -> str:
    return f'container "{word[:80]}" does not exist in namespace {namespace}; `windlass ps -a` lists those that do'
