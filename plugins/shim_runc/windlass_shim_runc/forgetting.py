"""Forgets a stopped container as `runc delete` does, but without executing it: that takes 6 ms, most of them Go's.

What runc keeps of a container without hooks to run is its cgroups, which its
state.json names, and the directory that this file is in. Whatever looks
different from that is left to runc.
"""

# ruff: noqa: PTH106, PTH108, PTH208
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass_shim_runc import disk

STATE = "state.json"
KNOWN = (STATE, "exec.fifo")

CGROUPS = b'"cgroup_paths":{'
"""Cannot be part of a JSON string, where its quotes would be escaped."""

NOTHING_MORE = (b'"intel_rdt_path":""', b'"poststop":null')
"""No Intel RDT group, and no hooks to run, however the spec spelt them: runc writes the state."""

HOOKED = (b"poststop", b"\\u004", b"\\u005", b"\\u006", b"\\u007", b"\\u017f", "\u017f".encode())
"""In lower case; letters may be escaped, and Go takes names in any case, and U+017F for an s (encoding/json)."""


def forget(root: str, id: str) -> bool:
    """Remove what runc keeps of a container whose processes are gone; False when that is for runc itself to do."""
    directory = f"{root}/{id}"
    try:
        state = disk.read(f"{directory}/{STATE}")
        places = cgroups(state)
        names = os.listdir(directory)
        if not places or not all(sign in state for sign in NOTHING_MORE) or not set(names).issubset(KNOWN):
            return False
        for place in places:
            # One that is busy, or has cgroups of its own below, is an error: runc waits, and looks below.
            if disk.exists(place):
                os.rmdir(place)
        for name in names:
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except OSError:
        return False
    return True


def may_be_hooked(spec: bytes) -> bool:
    """Return whether a spec may name poststop hooks; `delete` is the moment for those."""
    lowered = spec.lower()
    return any(sign in lowered for sign in HOOKED)


def cgroups(state: bytes) -> list[str]:
    """Return the directories of a container's cgroups; none when they cannot be read without a parser."""
    _, found, rest = state.rpartition(CGROUPS)
    names = rest.partition(b"}")[0]
    if not found or b"\\" in names:
        return []
    # "controller":"directory" and so on: between the quotes are controllers and directories by turns.
    return [os.fsdecode(place) for place in names.split(b'"')[3::4]]
