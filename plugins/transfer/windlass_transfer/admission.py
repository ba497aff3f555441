"""Whether an image may be used here: every verifier and every participant of the hook has to agree.

Source: docs/containerd 2.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping

from windlass.contracts.images import ImageHooks
from windlass.contracts.values import Descriptor
from windlass.contracts.verifiers import IMAGE_VERIFIER, JUDGEMENT_TIMEOUT, ImageVerifier, Judgement
from windlass.errors import Error, PermissionDenied, with_class
from windlass.hooks import Hooks
from windlass.plugin import Record, State

logger = logging.getLogger(__name__)


class Admission:
    """Asked before anything of an image is fetched or unpacked, and as often as a name gets a new meaning."""

    def __init__(self, verifiers: Mapping[str, ImageVerifier], hooks: Hooks, failed: Mapping[str, str] = {}) -> None:
        """Ask ``verifiers``, by their IDs, and then the hook's participants.

        As long as one has ``failed`` to start (URI to reason) nothing is admitted: it might have refused.
        """
        self._verifiers = verifiers
        self._hooks = hooks
        self._failed = failed

    async def admit(self, namespace: str, name: str, desc: Descriptor) -> None:
        """Raise PermissionDenied for an image that somebody refuses, or that cannot be judged."""
        for uri, reason in {**self._failed, **self._hooks.missing(ImageHooks.admit_image)}.items():
            remedy = f"mend it, or name it in disabled_plugins if images need not pass it: {reason}"
            raise PermissionDenied(
                f"image {name} is refused, because {uri} did not start and might refuse it; {remedy}"
            )
        for id, verifier in self._verifiers.items():
            judgement = await self._ask(id, verifier, name, desc)
            if not judgement.ok:
                reason = judgement.reason or "without a reason"
                raise PermissionDenied(f"image {name} ({desc.digest}) is refused by verifier {id}: {reason}")
        try:
            await self._hooks.call(ImageHooks.admit_image, namespace, name, desc)
        except Error as error:
            raise PermissionDenied(f"image {name} ({desc.digest}): {error}") from None

    async def _ask(self, id: str, verifier: ImageVerifier, name: str, desc: Descriptor) -> Judgement:
        try:
            async with asyncio.timeout(JUDGEMENT_TIMEOUT):
                judgement = await verifier.verify(name, desc)
            if not isinstance(judgement, Judgement):
                raise TypeError(f"it returned {judgement!r}, which is not a Judgement")
            return judgement
        except Exception as error:
            if not isinstance(error, Error):
                logger.warning("%s.%s failed: %s", IMAGE_VERIFIER.uri, id, with_class(error), exc_info=error)
            reason = f"could not be judged by verifier {id}: {with_class(error)}"
            raise PermissionDenied(f"image {name} {reason}") from None


def failed_verifiers(records: Iterable[Record]) -> dict[str, str]:
    """Return why each verifier that is installed and not disabled did not start, by URI; a skip is its own decision."""
    prefix = f"{IMAGE_VERIFIER.uri}."
    failed = [record for record in records if record.state == State.FAILED and record.uri.startswith(prefix)]
    return {record.uri: record.message for record in failed}
