"""What labels say about garbage collection (docs/containerd 3.14).

Pure: labels in, nodes out. A reference ``containerd.io/gc.ref.content`` may be
followed by ``.x`` or ``/x`` so that an object can have several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime

from windlass.config import durations
from windlass.records import dataclass
from windlass_metadata import nodes
from windlass_metadata.nodes import Node

PREFIX = "containerd.io/gc."
ROOT = PREFIX + "root"
REFERENCE = PREFIX + "ref."
BACK_REFERENCE = PREFIX + "bref."
CONDITION = PREFIX + "cond."
USED_AT = PREFIX + "cond.value-usedat"

NANOSECONDS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
REFERRED = (nodes.CONTENT, nodes.IMAGE)
REFERRERS = (nodes.CONTAINER, nodes.CONTENT, nodes.IMAGE)


@dataclass(frozen=True, slots=True)
class Condition:
    """A reference that holds while one of ``ages`` does, each "used less (or more) than so many ns ago"."""

    target: Node
    ages: tuple[tuple[str, int], ...]

    def holds(self, used_at: int | None, now: int) -> bool:
        """Return whether the reference holds for a snapshot that was used then."""
        if used_at is None:
            return False
        age = now - used_at
        return any(age < limit if sign == "<" else age > limit for sign, limit in self.ages)


def is_root(labels: Mapping[str, str]) -> bool:
    """Return whether labels make an object a root; the value does not matter."""
    return any(key.startswith(ROOT) for key in labels)


def references(namespace: str, labels: Mapping[str, str], collected: Collection[str] = ()) -> Iterator[Node]:
    """Yield what an object with these labels keeps; ``collected`` are kinds that other stores have us collect."""
    for kind, _, key in _nodes(namespace, labels, REFERENCE, (*REFERRED, *collected)):
        yield (nodes.NAMED + kind if kind in collected else kind), namespace, key


def back_references(namespace: str, labels: Mapping[str, str]) -> Iterator[Node]:
    """Yield what keeps an object with these labels."""
    return _nodes(namespace, labels, BACK_REFERENCE, REFERRERS)


def conditions(namespace: str, labels: Mapping[str, str]) -> Iterator[Condition]:
    """Yield the references that depend on when a snapshot was used."""
    for key, value in labels.items():
        if key.startswith(CONDITION):
            terms, separator, snapshot_key = value.partition("|")
            ages = tuple(age for term in terms.split(",") if (age := _age(term)))
            kind = _kind(key.removeprefix(CONDITION), ())
            if separator and ages and kind:
                yield Condition((kind, namespace, snapshot_key), ages)


def expired(time_text: str | None, now: int) -> bool:
    """Return whether a time of expiry lies behind; one that cannot be read never does."""
    moment = parse_time(time_text or "")
    return moment is not None and moment <= now


def parse_time(text: str) -> int | None:
    """Return an RFC 3339 time as nanoseconds since the epoch; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            return None
        # whole seconds apart from the fraction: a float has no room for nanoseconds
        return int((moment.replace(microsecond=0) - EPOCH).total_seconds()) * NANOSECONDS + moment.microsecond * 1000
    except ValueError:
        return None


def _nodes(namespace: str, labels: Mapping[str, str], prefix: str, kinds: tuple[str, ...]) -> Iterator[Node]:
    for key, value in labels.items():
        if key.startswith(prefix):
            kind = _kind(key.removeprefix(prefix), kinds)
            if kind:
                yield kind, namespace, value


def _kind(rest: str, kinds: tuple[str, ...]) -> str:
    """Return the kind of node that the rest of a label's key names, or ``""``."""
    if rest.startswith("snapshot."):
        snapshotter = rest.removeprefix("snapshot.").partition("/")[0]
        return nodes.SNAPSHOT + snapshotter if snapshotter else ""
    for kind in kinds:
        if rest.startswith(kind) and rest[len(kind) : len(kind) + 1] in ("", ".", "/"):
            return kind
    return ""


def _age(term: str) -> tuple[str, int] | None:
    for sign in "<>":
        name, found, duration = term.strip().partition(sign)
        if found and name.strip() == "usedat":
            try:
                return sign, int(durations.seconds(duration.strip()) * NANOSECONDS)
            except ValueError:
                return None
    return None
