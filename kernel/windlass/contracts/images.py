"""Contract: images, named pointers to descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.values import Descriptor
from windlass.marks import CLOSED, contract, step
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Image:
    """A name and what it points to; times are nanoseconds since the epoch, UTC."""

    name: str
    target: Descriptor
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


@contract
class ImageStore(Protocol):
    """Keeps one namespace's images; rules in docs/containerd 3.3. Publishes ``/images/*``."""

    def get(self, name: str) -> Image:
        """Raises NotFound."""
        ...

    def list(self, filters: Sequence[str] = ()) -> list[Image]:
        """Return those that match one of ``filters``, by name."""
        ...

    def create(self, image: Image, at: int | None = None) -> Image:
        """Record an image, as of ``at`` (default: now). Raises AlreadyExists, InvalidArgument."""
        ...

    def update(self, image: Image, fieldpaths: Sequence[str] = (), at: int | None = None) -> Image:
        """Change ``labels``, ``annotations`` (of the target) or ``target``, or all of them. Raises NotFound."""
        ...

    def delete(self, name: str, target: str = "") -> None:
        """Forget an image. Raises NotFound, also when it does not point to digest ``target``."""
        ...


class ImageHooks:
    """Steps in the life of an image, for plugins of type `windlass.plugin.HOOK`."""

    @step(CLOSED)
    def admit_image(self, namespace: str, name: str, desc: Descriptor) -> None:
        """Refuse, by raising an error, an image that a client wants to pull or to import under ``name``.

        Called after the verifiers, before anything of the image is fetched or unpacked.
        """
