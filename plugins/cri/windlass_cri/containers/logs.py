"""Log files as the kubelet reads them: time, stream, P or F, and text (docs/containerd 5.9)."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

MODE = 0o640
QUIET = 60.0
"""Seconds between two lines of the daemon's log about one full log: a container may write thousands in a second."""


class LogFile:
    """The log of a container; both streams append to it."""

    def __init__(self, path: Path) -> None:
        """Open a log, which is made if it is not there. Raises OSError."""
        self._path = path
        self._fd = self._open()
        self._lost = 0
        self._quiet_until = 0.0

    def _open(self) -> int:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, MODE)

    def write(self, data: bytes) -> None:
        """Append all of it, or nothing and raise OSError: what comes once the disk has room begins on a new line."""
        before = os.fstat(self._fd).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, before)
            raise

    def append(self, data: bytes) -> None:
        """Append all of it, or lose it: a container does not wait for a disk. The daemon's log has how much is lost."""
        try:
            self.write(data)
        except OSError as error:
            self._lost += len(data)
            if time.monotonic() >= self._quiet_until:
                self._tell(str(error.strerror))

    def _tell(self, reason: str) -> None:
        logger.warning("%d bytes of a container's log are lost, %s: %s", self._lost, self._path, reason)
        self._lost, self._quiet_until = 0, time.monotonic() + QUIET

    def reopen(self) -> None:
        """Go on in a new file, after the old one was renamed. Raises OSError; then the old one is used."""
        old, self._fd = self._fd, self._open()
        os.close(old)

    def close(self) -> None:
        """Close the file."""
        if self._lost:
            self._tell("and the container has ended, or the daemon ends")
        os.close(self._fd)


class Lines:
    """Makes log lines of one stream's bytes."""

    def __init__(self, stream: str, limit: int) -> None:
        """Split lines after ``limit`` bytes, never if that is 0 or less."""
        self._stream = stream.encode()
        self._limit = limit if limit > 0 else 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the lines that ``data`` completes; what has no end yet is held."""
        parts = (self._rest + data).split(b"\n")
        self._rest = parts.pop()
        out = [self._line(part.removesuffix(b"\r")) for part in parts]
        # A return may yet turn out to be the end of the line, and no part of it.
        while self._limit and len(self._rest) - self._rest.endswith(b"\r") > self._limit:
            out.append(self._entry(b"P", self._rest[: self._limit]))
            self._rest = self._rest[self._limit :]
        return b"".join(out)

    def end(self) -> bytes:
        """Return what is held, as a part of a line."""
        rest, self._rest = self._rest, b""
        return self._entry(b"P", rest) if rest else b""

    def _line(self, text: bytes) -> bytes:
        out = b""
        while self._limit and len(text) > self._limit:
            out += self._entry(b"P", text[: self._limit])
            text = text[self._limit :]
        return out + self._entry(b"F", text)

    def _entry(self, tag: bytes, text: bytes) -> bytes:
        return b"%b %b %b %b\n" % (timestamp(time.time_ns()), self._stream, tag, text)


def timestamp(nanoseconds: int) -> bytes:
    """Return a time as Go's RFC3339Nano writes it: local time, no zeros at the end."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    offset = local.tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}" if offset else "Z"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}{digits}{zone}".encode()
