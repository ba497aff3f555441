"""Which stream processors turn a layer into one that this differ reads, decided from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.diff import LAYER, StreamProcessor
from windlass.contracts.values import Payload
from windlass.errors import FailedPrecondition
from windlass.records import dataclass
from windlass_diff.media import is_compressed

MOST = 8
"""More in a row are taken for a circle; two, for what is encrypted and signed, are many already."""


@dataclass(frozen=True, slots=True)
class Step:
    """One program of a chain, and the media type that it is given."""

    id: str
    media_type: str
    processor: StreamProcessor


def chain(media_type: str, processors: Mapping[str, StreamProcessor]) -> tuple[list[Step], bool]:
    """Return the programs that a layer goes through, and whether what the last one gives may be compressed.

    Of several that accept a type the last one counts (docs/containerd 3.16, "Processors").
    Raises Unimplemented where they lead to nothing that is a layer, FailedPrecondition where they lead in a circle.
    """
    steps: list[Step] = []
    while found := _accepting(media_type, processors):
        if len(steps) == MOST:
            ids = ", ".join(dict.fromkeys(step.id for step in steps))
            raise FailedPrecondition(f"stream processors {ids} lead in a circle; correct their accepts and returns")
        steps.append(Step(found, media_type, processors[found]))
        media_type = processors[found].returns
        if media_type == LAYER:
            return steps, False
    return steps, is_compressed(media_type)


def _accepting(media_type: str, processors: Mapping[str, StreamProcessor]) -> str:
    return next((id for id in reversed(list(processors)) if media_type in processors[id].accepts), "")


def rows(steps: Sequence[Step], payloads: Mapping[str, Payload]) -> tuple[list[list[object]], list[bytes]]:
    """Return steps as a request has them, each with the place of its payload in the second list, or -1."""
    given: list[bytes] = []
    listed: list[list[object]] = []
    for step in steps:
        place = -1
        if step.id in payloads:
            place = len(given)
            given.append(any_bytes(payloads[step.id]))
        each = step.processor
        listed.append([step.id, step.media_type, each.path, list(each.args), list(each.env), place])
    return listed, given


def any_bytes(payload: Payload) -> bytes:
    """Return a ``google.protobuf.Any`` as it is on the wire: the two fields that it has."""
    fields = ((b"\x0a", payload.type_url.encode()), (b"\x12", payload.value))
    return b"".join(tag + _varint(len(value)) + value for tag, value in fields if value)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
