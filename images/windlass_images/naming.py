"""Names for the images of an archive: by a command line's options, or by a transfer's rules."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from windlass.contracts.transfer import ExtraReference, Stored
from windlass.contracts.values import Descriptor
from windlass.errors import InvalidArgument

NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

Namer = Callable[[Mapping[str, str], Descriptor, int], list[str]]
"""Gives names to an image, by its annotations, its descriptor, and how many images the archive has."""


def by_options(name: str, base_name: str) -> Namer:
    """Name the one image ``name``; or all by their annotations, those that have only a tag below ``base_name``."""

    def names(annotations: Mapping[str, str], target: Descriptor, images: int) -> list[str]:
        if name:
            if images > 1:
                raise InvalidArgument(f"it has {images} images, so that one --name does not do; use --base-name")
            return [name]
        base = base_name or f"import-{datetime.now(UTC):%Y-%m-%d}"
        tags = [annotations[key] for key in (NAME, REF_NAME) if annotations.get(key)][:1]
        return [_full(tag, base) for tag in tags] or [f"{base}@{target.digest}"]

    return names


def by_references(references: Sequence[ExtraReference]) -> Namer:
    """Name images as a transfer's prefixes say (docs/containerd 3.17); an image that none of them fits gets no name."""
    prefixes = [reference for reference in references if reference.is_prefix]

    def names(annotations: Mapping[str, str], target: Descriptor, images: int) -> list[str]:
        found = []
        for reference in prefixes:
            name = _referenced(annotations, reference)
            found += [name] if name else []
            if reference.add_digest and not (name and reference.skip_named_digest):
                found.append(f"{reference.name}@{target.digest}")
        return list(dict.fromkeys(found))

    return names


def whole(name: str, references: Sequence[ExtraReference], target: Descriptor) -> list[str]:
    """Return the names that a transfer gives to everything that it stores: an archive's index, or the pulled image.

    A prefix without a digest is none; that images below it may have a name of their own does not matter here.
    """
    named = [reference for reference in references if reference.add_digest or not reference.is_prefix]
    extra = [f"{each.name}@{target.digest}" if each.add_digest else each.name for each in named]
    return list(dict.fromkeys([name, *extra] if name else extra))


def labels(name: str, wanted: Stored) -> dict[str, str]:
    """Return the labels of one of the names; every name but the first refers to the first, as in containerd."""
    if not wanted.name or name == wanted.name:
        return dict(wanted.labels)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {**wanted.labels, "containerd.io/gc.bref.image": wanted.name, "containerd.io/gc.expire": now}


def _referenced(annotations: Mapping[str, str], reference: ExtraReference) -> str:
    # A name in containerd's own annotation is whole, and taken or left as it is; a tag there means nothing.
    if own := annotations.get(NAME, ""):
        return own if _is_full(own) and _fits(own, reference) else ""
    tag = annotations.get(REF_NAME, "")
    if not tag or not reference.name:
        return ""
    full = _full(tag, reference.name)
    return full if _fits(full, reference) else ""


def _is_full(name: str) -> bool:
    """Tell a name from a bare tag (docs/containerd 6.6)."""
    return bool(set(name) & set("/:@"))


def _full(name: str, base: str) -> str:
    return name if _is_full(name) else f"{base}:{name}"


def _fits(name: str, reference: ExtraReference) -> bool:
    if not reference.name:
        return False
    if reference.allow_overwrite:
        return True
    return any(_begins(part, reference.name) for part in (name, posixpath.basename(name)))


def _begins(name: str, prefix: str) -> bool:
    """Return whether ``name`` is below ``prefix``, and not merely begins with the same letters."""
    return name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@")


def object_of(name: str) -> str:
    """Return what follows the repository in a name, the whole name if it has no repository (docs/containerd 6.2)."""
    host, slash, path = name.partition("/")
    repository = re.match(r"[^:@]+", path)
    rest = path[repository.end() :].removeprefix(":") if repository else ""
    return rest if host and slash and rest and not rest.startswith("@") else name


def check(names: Sequence[str]) -> None:
    """Refuse what cannot be the name of an image."""
    for name in names:
        if len(name) > 4096 or not name.isprintable():
            raise InvalidArgument(f"it has an image with an unusable name: {name[:100]!r}")
