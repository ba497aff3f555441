"""Names of images as people type them: `alpine` is `docker.io/library/alpine:latest`."""

from __future__ import annotations

HUB = "docker.io"


def full(name: str) -> str:
    """Return a name with its registry and a tag, as docker completes it; an empty name stays so."""
    if not name:
        return name
    first, slash, rest = name.partition("/")
    is_host = slash and (first == "localhost" or "." in first or ":" in first or first != first.lower())
    if not is_host:
        name = f"{HUB}/{name}" if slash else f"{HUB}/library/{name}"
    elif first == HUB and "/" not in rest:
        name = f"{HUB}/library/{rest}"
    repository, at, _ = name.partition("@")
    if not at and ":" not in repository.rpartition("/")[2]:
        return f"{name}:latest"
    return name


def familiar(name: str) -> str:
    """Return a name without what is understood: docker's own registry and its library."""
    return name.removeprefix(f"{HUB}/library/").removeprefix(f"{HUB}/")
