"""Marks of removal: a name with ``-`` before it, in place of a value to set."""

from __future__ import annotations

MARK = "-"


def mark(name: str) -> str:
    """Return ``name``, marked for removal."""
    return MARK + name


def unmark(name: str) -> tuple[str, bool]:
    """Return a name without its mark, and whether it had one."""
    return name.removeprefix(MARK), name.startswith(MARK)
