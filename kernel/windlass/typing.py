"""Typing that Python 3.11 lacks, without its cost at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import override
else:

    def override(method):  # noqa: ANN001, ANN201 -- checkers see the real one, above
        """Mark ``method`` as an implementation of what its class's contract declares; see PEP 698."""
        return method


__all__ = ["override"]
