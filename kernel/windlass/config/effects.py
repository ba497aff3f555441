"""Keys that containerd has and that change nothing here, for configuration classes of plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

SAME = "windlass.same"


def without_effect(default: T, *same: T) -> T:
    """Return the field of a key without effect. A value other than containerd's ``default`` gets a warning.

    ``same`` are values that mean what the default means.
    """
    return dataclasses.field(default=default, metadata=only(default, *same))


def only(*same: object) -> Mapping[str, object]:
    """Return the metadata of a key without effect, unless its value is one of ``same``: for a field with a factory."""
    return {SAME: same}


def has_no_effect(field: dataclasses.Field[object], value: object) -> bool:
    """Return whether a key asks for something that it does not get."""
    return SAME in field.metadata and value not in field.metadata[SAME]
