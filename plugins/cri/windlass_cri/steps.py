"""Errors that name what was being made, and the step that failed."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from windlass.errors import DeadlineExceeded, Error, NotFound, Unavailable, Unknown

R = TypeVar("R")

IMAGE_VOLUME = "failed to mount image volume: ImageVolumeMountFailed: "
"""What the kubelet looks for at the beginning of an error."""
_RUNTIME_WORDS = {"cgroup": ("cgroup",), "mount": ("mounting", "mountpoint", "mount propagation", "rootfs")}


async def step(subject: str, name: str, work: Awaitable[R]) -> R:
    """Await a step of making ``subject``; an error says both. Clients know few codes from here (cri-facts 1)."""
    try:
        return await work
    except (Error, OSError) as error:
        if str(error).startswith((f"{subject}: ", IMAGE_VOLUME)):
            raise  # a step of this one has said so
        kind = type(error) if isinstance(error, DeadlineExceeded | NotFound | Unavailable) else Unknown
        raise kind(f"{subject}: {name}: {error}") from error


async def runtime_step(subject: str, doing: str, work: Awaitable[R]) -> R:
    """Await a call of the OCI runtime, which says in its own words whether a cgroup or a mount is the trouble.

    ``doing`` is what containerd has before the runtime's message.
    """
    try:
        return await work
    except Error as error:
        text = str(error)
        name = next((name for name, words in _RUNTIME_WORDS.items() if any(word in text for word in words)), "runtime")
        raise type(error)(f"{subject}: {name}: {doing}: {text}") from error
