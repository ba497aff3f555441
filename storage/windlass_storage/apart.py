"""Mounts that no other process sees, and that a crash cannot leave: for plugins that try at their start what works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias, TypeVar

from windlass.contracts.mounts import Mount
from windlass_linux import calls as linux
from windlass_linux import mounting

T = TypeVar("T")
Work: TypeAlias = Callable[[Path], object]


def run(work: Callable[[], T], scratch: Path) -> T:
    """Return what ``work`` does, in a thread with mounts of its own; what it has mounted below ``scratch`` goes."""

    def unshared() -> T:
        # unshare(2): of the thread alone.
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
        try:
            return work()
        finally:
            mounting.unmount_all(scratch)

    # The thread ends here and its mounts with it, also those that someone keeps busy.
    with ThreadPoolExecutor(1, "apart") as thread:
        return thread.submit(unshared).result()


def mounted(mounts: Sequence[Mount], place: Path, work: Work) -> None:
    """Have ``work`` look at ``mounts``, on the directory ``place``, which is made for it and stays for the next time.

    Then a start needs no space for it.
    """

    def look() -> None:
        mounting.mount_all(mounts, place)
        work(place)

    place.mkdir(mode=0o700, exist_ok=True)
    run(look, place)
