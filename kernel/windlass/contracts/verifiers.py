"""Contract: image verifiers, which are asked before anything of an image is fetched or unpacked.

Source: docs/containerd 2.2.
"""

from __future__ import annotations

from typing import Protocol

from windlass.contracts.values import Descriptor
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verifier's decision about an image, and why; the reason reaches the client that wants the image."""

    ok: bool
    reason: str = ""


@contract
class ImageVerifier(Protocol):
    """Judges images by name and by the digest that the name stands for now."""

    async def verify(self, name: str, desc: Descriptor) -> Judgement:
        """Judge an image. An error says that it could not be judged, and refuses it as a bad judgement does.

        It runs on an event loop that this plugin has for itself, and is cancelled after
        `JUDGEMENT_TIMEOUT`, or when the client that wants the image gives up.
        """
        ...


JUDGEMENT_TIMEOUT = 600.0
"""Seconds that one verifier may take for one image; most have shorter limits of their own."""

IMAGE_VERIFIER: PluginType[ImageVerifier] = PluginType("io.containerd.image-verifier.v1", ImageVerifier, own_loop=True)
