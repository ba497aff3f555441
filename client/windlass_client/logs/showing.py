"""Writes a log to our own standard output and standard error, as the container had written it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import dropwhile, takewhile

from windlass_client.logs.reading import Entry


def chosen(entries: Iterable[Entry], since: str, until: str) -> Iterable[Entry]:
    """Leave out what is older or newer; both are as `moments.stamp` returns them, or empty."""
    if since:
        entries = dropwhile(lambda entry: entry.time < since, entries)
    return takewhile(lambda entry: entry.time <= until, entries) if until else entries


def show(entries: Iterable[Entry], timestamps: bool) -> None:
    """Write entries; the time stands before each line, not before each part of a long one."""
    begun: dict[str, bool] = {}
    for entry in entries:
        out = sys.stderr if entry.stream == "stderr" else sys.stdout
        if timestamps and not begun.get(entry.stream):
            out.write(f"{entry.time} ")
        begun[entry.stream] = not entry.text.endswith("\n")
        out.write(entry.text)
        out.flush()
