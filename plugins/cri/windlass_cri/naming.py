"""Errors that say which step of a call they are of, in containerd's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from windlass.errors import Error


@contextmanager
def step(name: str) -> Iterator[None]:
    """Put ``name`` before the message of an error."""
    try:
        yield
    except Error as error:
        raise type(error)(f"{name}: {error}") from error
