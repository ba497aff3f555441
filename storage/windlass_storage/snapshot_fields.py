"""What filters see of a snapshot, and what updates may change of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.snapshots import Info
from windlass.errors import InvalidArgument
from windlass.filters.expressions import ABSENT, Adaptor, label_of, value_of


def adaptor(info: Info) -> Adaptor:
    """Return how filters see a snapshot (docs/containerd 8.2, Walk): kind, name, parent and labels."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path[0]:
            case "kind":
                return info.kind.name.lower(), True
            case "name":
                return value_of(info.name)
            case "parent":
                # Always there, so that ``parent!=""`` finds those that have one.
                return info.parent, True
            case "labels":
                return label_of(info.labels, path)
        return ABSENT

    return field


def changed_labels(now: Mapping[str, str], wanted: Mapping[str, str], fieldpaths: Sequence[str]) -> dict[str, str]:
    """Return the labels after an update of ``fieldpaths``; raises InvalidArgument for a path that is not of labels."""
    for path in fieldpaths:
        if path != "labels" and not path.startswith("labels."):
            raise InvalidArgument(f"cannot update field {path!r} of a snapshot, only labels")
    if not fieldpaths or "labels" in fieldpaths:
        return dict(wanted)
    labels = dict(now)
    for path in fieldpaths:
        key = path.removeprefix("labels.")
        if key in wanted:
            labels[key] = wanted[key]
        else:
            labels.pop(key, None)
    return labels
