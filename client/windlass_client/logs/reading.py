"""Reads logs in docker's json-file format: the last lines, a span of time, and what comes on."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from windlass_client.logs.program import LOCK

BLOCK = 64 << 10
PAUSE = 0.05


@dataclass(frozen=True)
class Entry:
    """What a container wrote at once: a line with its end, or part of one."""

    stream: str
    text: str
    time: str


def parse(line: bytes) -> Entry | None:
    """Return the entry of a line, None for one that a crash cut."""
    try:
        found = json.loads(line)
        return Entry(str(found["stream"]), str(found["log"]), str(found["time"]))
    except (ValueError, KeyError, TypeError):
        return None


class Log:
    """A log with its older parts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self, tail: int | None = None, follow: bool = False) -> Iterator[Entry]:
        """Yield the last ``tail`` entries, all without it; with ``follow``, go on until the container has ended."""
        with ExitStack() as stack:
            files = self._opened(stack)
            if tail is not None:
                files = _skip_to(files, tail)
            for file in files[:-1]:
                yield from _entries(file)
            if files:
                yield from self._last(files[-1], follow, stack)
            elif follow:
                yield from self._wait_for_first(stack)

    def _opened(self, stack: ExitStack) -> list[BinaryIO]:
        """Open the files, and return them with the oldest first.

        They are opened with the newest first: a rotation meanwhile shows some a second time, and hides none.
        """
        found: dict[int, BinaryIO] = {}
        for path in (self._path, *self._older()):
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                continue
            found.setdefault(os.fstat(file.fileno()).st_ino, file)
        return list(found.values())[::-1]

    def _older(self) -> Iterator[Path]:
        names = (found.name for found in self._path.parent.glob(f"{self._path.name}.*"))
        numbers = [int(number) for name in names if (number := name.rpartition(".")[2]).isdigit()]
        for at in range(1, max(numbers, default=0) + 2):
            yield self._path.with_name(f"{self._path.name}.{at}")

    def _wait_for_first(self, stack: ExitStack) -> Iterator[Entry]:
        while self._path.parent.exists():
            if self._path.exists():
                yield from self._last(stack.enter_context(self._path.open("rb")), True, stack)
                return
            time.sleep(PAUSE)

    def _last(self, file: BinaryIO, follow: bool, stack: ExitStack) -> Iterator[Entry]:
        while True:
            # In this order: what is written before the end, or before the rotation, is read after seeing it.
            ended = not follow or not self._grows()
            with ExitStack() as opened:
                newer = self._after(file, opened) if self._is_rotated(file) else []
                yield from _entries(file)
                for each in newer[:-1]:
                    yield from _entries(each)
                    each.close()
                if newer:
                    file.close()
                    file = newer[-1]
                    stack.push(opened.pop_all())
                    continue
            if ended:
                return
            time.sleep(PAUSE)

    def _is_rotated(self, file: BinaryIO) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False  # a rotation is under way, or the container is being removed

    def _after(self, file: BinaryIO, opened: ExitStack) -> list[BinaryIO]:
        """Open the parts that came after an open one."""
        ours = os.fstat(file.fileno()).st_ino
        parts = self._opened(opened)
        inodes = [os.fstat(part.fileno()).st_ino for part in parts]
        return parts[inodes.index(ours) + 1 :] if ours in inodes else parts

    def _grows(self) -> bool:
        """Return whether the program that writes is there: it holds the lock."""
        try:
            with (self._path.parent / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def _entries(file: BinaryIO) -> Iterator[Entry]:
    """Yield the whole lines that there are now; half a line is left for the next time."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        if entry := parse(line):
            yield entry


def _skip_to(files: list[BinaryIO], count: int) -> list[BinaryIO]:
    """Move to the last ``count`` lines and return the files that have them."""
    for at in range(len(files) - 1, -1, -1):
        count -= _seek_back(files[at], count)
        if count <= 0:
            return files[at:]
    return files


def _seek_back(file: BinaryIO, count: int) -> int:
    """Move to the last ``count`` lines of a file and return how many there are, at most ``count``."""
    at = file.seek(0, os.SEEK_END)
    found = -1
    while at > 0:
        start = max(0, at - BLOCK)
        file.seek(start)
        block = file.read(at - start)
        while (end := block.rfind(b"\n")) >= 0:
            found += 1
            if found == count:
                file.seek(start + end + 1)
                return count
            block = block[:end]
        at = start
    file.seek(0)
    return found + 1
