"""Whether an image may be used here: every verifier and every participant of the hook has to agree (reference 2.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from windlass.errors import Error, PermissionDenied
from windlass.hooks import Hooks
from windlass.values import Descriptor
from windlass.verifiers import ImageVerifier

STEP = "admit_image"


class Admission:
    """Asked before anything of an image is fetched or unpacked, and as often as a name gets a new meaning."""

    def __init__(self, verifiers: Mapping[str, ImageVerifier], hooks: Hooks) -> None:
        """Ask ``verifiers``, by their IDs, and then the hook's participants."""
        self._verifiers = verifiers
        self._hooks = hooks

    async def admit(self, namespace: str, name: str, desc: Descriptor) -> None:
        """Raise PermissionDenied for an image that somebody refuses, or that cannot be judged."""
        for id, verifier in self._verifiers.items():
            try:
                judgement = await verifier.verify(name, desc)
            except Error as error:
                raise PermissionDenied(f"image {name} could not be judged by verifier {id}: {error}") from None
            if not judgement.ok:
                reason = judgement.reason or "without a reason"
                raise PermissionDenied(f"image {name} ({desc.digest}) is refused by verifier {id}: {reason}")
        if self._hooks.wanted(STEP):
            await asyncio.to_thread(self._ask_hooks, namespace, name, desc)

    def _ask_hooks(self, namespace: str, name: str, desc: Descriptor) -> None:
        try:
            self._hooks.call(STEP, namespace=namespace, name=name, desc=desc)
        except Error as error:
            raise PermissionDenied(f"image {name} ({desc.digest}): {error}") from None
