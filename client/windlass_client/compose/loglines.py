"""The log of a container as whole lines, without holding up the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator

from windlass_client.compose.engine import Line
from windlass_client.logs import moments
from windlass_client.logs.reading import Entry, Log
from windlass_client.logs.showing import chosen

AHEAD = 1000
"""Lines that may be read before they are printed."""


async def lines(log: Log, follow: bool, tail: int | None, since: str, until: str) -> AsyncIterator[Line]:
    """Yield the lines of a log; with ``follow``, until its container has ended."""
    first, last = (moments.stamp(text) if text else "" for text in (since, until))
    queue: asyncio.Queue[Line | None] = asyncio.Queue(AHEAD)
    loop = asyncio.get_running_loop()

    def put(line: Line | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(line), loop).result()

    def read() -> None:
        try:
            for line in whole(chosen(log.entries(tail, follow), first, last)):
                put(line)
            put(None)
        except RuntimeError:
            pass  # the loop has ended, and with it whoever read this

    # A log that nobody writes to holds its reader for as long as the container runs, so no thread of a pool has it.
    threading.Thread(target=read, name="windlass-log", daemon=True).start()
    while (line := await queue.get()) is not None:
        yield line


def whole(entries: Iterable[Entry]) -> Iterator[Line]:
    """Join the parts of long lines; the last line may have no end."""
    begun: dict[str, Entry] = {}
    for entry in entries:
        before = begun.pop(entry.stream, None)
        joined = Entry(entry.stream, before.text + entry.text, before.time) if before else entry
        if joined.text.endswith("\n"):
            yield Line(joined.time, joined.stream, joined.text[:-1])
        else:
            begun[entry.stream] = joined
    for entry in begun.values():
        yield Line(entry.time, entry.stream, entry.text)
