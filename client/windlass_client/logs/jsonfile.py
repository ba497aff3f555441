"""Writes a log in docker's json-file format, a JSON object for each line, and rotates it by size.

Part of a program that runs once for each container: no module of the standard library that is not needed.
"""

from __future__ import annotations

import os
import time
from _json import encode_basestring

STDOUT, STDERR = 1, 2
NAMES = {STDOUT: '"stdout"', STDERR: '"stderr"'}
LONGEST = 16 << 10
"""Bytes of a line that are kept until its end comes; docker has the same."""


class Writer:
    """Appends to a log; a full disk costs lines, and the log says how many."""

    def __init__(self, path: str, max_size: int, max_files: int) -> None:
        """Write to ``path``; 0 for ``max_size`` means no limit."""
        self._path = path
        self._max_size = max_size
        self._max_files = max_files
        self._rest = {STDOUT: b"", STDERR: b""}
        self._lost = 0
        self._why = ""
        self._open()
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            # An earlier writer was killed in the middle of a line; readers leave that one out.
            self._append(b"\n", 0)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Take output; what has no line end yet waits for it, up to `LONGEST` bytes."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        records = [line + b"\n" for line in lines]
        while len(rest) >= LONGEST:
            records.append(rest[:LONGEST])
            rest = rest[LONGEST:]
        self._rest[stream] = rest
        if records:
            self._records(stream, records)

    def close(self) -> None:
        """Write what has no line end, and close the file."""
        for stream, rest in self._rest.items():
            if rest:
                self._records(stream, [rest])
        os.close(self._fd)

    def _records(self, stream: int, lines: list[bytes]) -> None:
        tail = f',"stream":{NAMES[stream]},"time":"{now()}"}}\n'
        pending: list[bytes] = []
        size = 0
        for line in lines:
            record = f'{{"log":{encode_basestring(line.decode("utf-8", "replace"))}{tail}'.encode()
            if self._max_size and self._size + size + len(record) > self._max_size and self._size + size:
                self._append(b"".join(pending), len(pending))
                pending, size = [], 0
                self._rotate()
            pending.append(record)
            size += len(record)
        self._append(b"".join(pending), len(pending))

    def _append(self, data: bytes, lines: int) -> None:
        if self._lost and data:
            note = encode_basestring(f"windlass: {self._lost} lines of this log are lost: {self._why}\n")
            data = f'{{"log":{note},"stream":"stderr","time":"{now()}"}}\n'.encode() + data
        try:
            written = os.write(self._fd, data) if data else 0
            self._why = "the disk is full"
        except OSError as error:
            written, self._why = -1, os.strerror(error.errno or 0)
        if written == len(data):
            self._size += written
            self._lost = 0
        else:
            # Half a line would make the next one unreadable.
            os.ftruncate(self._fd, self._size)
            self._lost += lines

    def _rotate(self) -> None:
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, self._max_files))]
        new = f"{self._path}-new"
        try:
            # First, as a full disk may refuse it: nothing is moved then, and the log grows on.
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
                if os.path.exists(newer):  # noqa: PTH110 - pathlib is too big here
                    os.rename(newer, older)  # noqa: PTH104
            os.rename(new, self._path)  # noqa: PTH104
            before = self._fd
            self._open()
            os.close(before)
        except OSError as error:
            self._why = os.strerror(error.errno or 0)


def now() -> str:
    """Return the time as logs have it, always with nine digits, so that two can be compared as text."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
