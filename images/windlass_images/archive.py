"""Image archives: one pass over a tar file, compressed or not, that nobody has checked before.

Memory stays small whatever the archive says; a name from it is only ever a key, never a path.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from windlass.errors import InvalidArgument, NotFound, OutOfRange, PermissionDenied

if TYPE_CHECKING:
    from typing import Self

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
XZ = b"\xfd7zXZ\x00"
BZIP2 = b"BZh"
WINDOW_LIMIT = 128 << 20
"""Memory that a zstd frame may ask for."""
HEADER_LIMIT = 1 << 20
"""Bytes of an extended header: a long name or PAX records."""
ENTRIES_LIMIT = 100_000

EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
LONG = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})


DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError)

T = TypeVar("T")


class _Header(tarfile.TarInfo):
    """A header that is refused before tarfile reads its data into memory."""

    # tarfile calls these and says that subclasses may override them; typeshed does not know them.
    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED | LONG and self.size > HEADER_LIMIT:
            raise OutOfRange(f"an extended header has {self.size} bytes, the limit is {HEADER_LIMIT}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise InvalidArgument(f"entry {self.name[:200]!r} is sparse, which image archives never are")
        if self.size < 0:
            raise InvalidArgument(f"entry {self.name[:200]!r} has the size {self.size}")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc] # as above
        if member.size < 0:
            raise InvalidArgument(f"entry {member.name[:200]!r} has the size {member.size}")
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise InvalidArgument(f"entry {self.name[:200]!r} is sparse, which image archives never are")


@dataclass(frozen=True)
class Entry:
    """A regular file, or with ``link`` set a name for another."""

    name: str
    size: int
    link: str = ""


class Archive:
    """An archive being read; `next` moves on, `read` reads from where it stands. Blocks: call it in a thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._count = 0
        self._data: IO[bytes] | None = None
        self._damage: tuple[type[Exception], ...] = DAMAGE
        self._file = _open(path)
        try:
            stream = self._guard(lambda: self._decompressed(self._file))
            self._tar = self._guard(lambda: tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header))  # noqa: SIM115 - closed with its file
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdin.buffer:
            self._file.close()

    def next(self) -> Entry | None:
        """Return the next regular file or link, None at the end."""
        return self._guard(self._next)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the current entry, empty at its end."""
        assert self._data is not None, "no entry is being read"
        return self._guard(lambda: self._data.read(size) if self._data else b"")

    def _next(self) -> Entry | None:
        while (member := self._tar.next()) is not None:
            # tarfile would keep every header that it has seen
            self._tar.members = []  # type: ignore[attr-defined] # typeshed keeps it to itself
            self._count += 1
            if self._count > ENTRIES_LIMIT:
                raise OutOfRange(f"it has more than {ENTRIES_LIMIT} entries")
            name = posixpath.normpath("/" + member.name).lstrip("/")
            if member.issym() or member.islnk():
                base = posixpath.dirname(name) if member.issym() else ""
                link = posixpath.normpath(posixpath.join("/", base, member.linkname)).lstrip("/")
                return Entry(name, 0, link)
            if member.isreg():
                self._data = self._tar.extractfile(member)
                return Entry(name, member.size)
        return None

    def _decompressed(self, file: IO[bytes]) -> IO[bytes]:
        buffered = io.BufferedReader(file)  # type: ignore[type-var] # typeshed wants a RawIOBase; any readable will do
        magic = buffered.peek(6)[:6]
        if magic.startswith(GZIP):
            return gzip.GzipFile(fileobj=buffered)  # type: ignore[return-value] # IO[bytes] in all that tarfile needs
        if magic.startswith(ZSTD):
            import zstandard

            self._damage = (*DAMAGE, zstandard.ZstdError)
            frames = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
            return frames.stream_reader(buffered, read_across_frames=True)
        if magic.startswith((XZ, BZIP2)):
            raise InvalidArgument("it is compressed with xz or bzip2; image archives are plain, gzip or zstd")
        return buffered

    def _guard(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except (OutOfRange, InvalidArgument) as error:
            raise type(error)(f"archive {self.path}: {error}") from None
        except self._damage as error:
            raise InvalidArgument(f"archive {self.path} is damaged or no tar file: {str(error)[:200]}") from None
        except OSError as error:
            raise InvalidArgument(f"archive {self.path} cannot be read: {error.strerror or error}") from None


def _open(path: str) -> IO[bytes]:
    if path == "-":
        return sys.stdin.buffer
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise NotFound(f"archive {path} does not exist") from None
    except PermissionError:
        raise PermissionDenied(f"archive {path} may not be read by this user") from None
    except OSError as error:
        raise InvalidArgument(f"archive {path} cannot be opened: {error.strerror}") from None
