"""Types of JSON: documents of the specification and states, whose shapes are checked where they come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

# Any: what a member is, the specification says and not a type of Python's.
Json: TypeAlias = Mapping[str, Any]
Document: TypeAlias = dict[str, Any]
