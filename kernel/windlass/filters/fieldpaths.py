"""Field masks of update calls, as they apply to labels (docs/containerd 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.values import check_label_keys, check_labels
from windlass.errors import InvalidArgument

LABELS = "labels"


def updated_labels(
    current: Mapping[str, str], changes: Mapping[str, str], fieldpaths: Sequence[str], what: str
) -> dict[str, str]:
    """Return ``current`` with ``changes`` applied as ``fieldpaths`` say; an empty value removes its label.

    No path, or ``labels``: replace them all. ``labels.<key>``: set that one, or remove it when ``changes`` lacks it.
    Raises InvalidArgument for any other path, naming ``what`` is being updated, and for a label that is too long.
    """
    result = updated_map(LABELS, current, changes, fieldpaths or (LABELS,), what)
    check_labels(result)
    return result


def updated_map(
    name: str, current: Mapping[str, str], changes: Mapping[str, str], fieldpaths: Sequence[str], what: str
) -> dict[str, str]:
    """Do the same for any field that maps strings to strings, such as ``annotations``, and of any length.

    No path changes nothing. Raises InvalidArgument for another path and for an empty key.
    """
    result = dict(current)
    for path in fieldpaths:
        if path == name:
            result = dict(changes)
        elif (key := path.removeprefix(f"{name}.")) != path and key:
            result[key] = changes.get(key, "")
        else:
            raise InvalidArgument(
                f"cannot update field {path[:128]!r} of {what}: only {name} and {name}.<key> can change"
            )
    check_label_keys(result, name.removesuffix("s"))
    return kept_labels(result)


def kept_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return ``labels`` without those whose value is empty, which stands for "not there"."""
    return {key: value for key, value in labels.items() if value}


def selects(path: str, name: str) -> bool:
    """Return whether ``path`` is the map field ``name`` or one of its keys, for objects with several fields."""
    return path == name or path.startswith(f"{name}.")
