"""Image archives: one pass over an untrusted tar file, compressed or not.

Memory stays small, whatever the archive contains. A name from it is only ever a key, never a path.
"""

from __future__ import annotations

import os
import posixpath
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

from windlass.contracts.values import DIGEST
from windlass.errors import InvalidArgument, NotFound, OutOfRange, PermissionDenied
from windlass_images.compression import decompressed, why

if TYPE_CHECKING:
    from typing import Self

HEADER_LIMIT = 1 << 20
"""Bytes of an extended header: a long name or PAX records."""
ENTRIES_LIMIT = 100_000

EXTENDED = frozenset({tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE})
LONG = frozenset({tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK})


DAMAGE = (tarfile.TarError, EOFError, ValueError)

T = TypeVar("T")


class Header(tarfile.TarInfo):
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


class Files(Protocol):
    """The files of an image archive, one after the other. Blocks: call it in a thread."""

    @property
    def path(self) -> str:
        """The archive's name in errors."""
        ...

    def next(self) -> Entry | None:
        """Return the next regular file or link, None at the end."""
        ...

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the current entry, empty at its end."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...


class Archive:
    """A tar archive being read; `next` moves on, `read` reads from where it stands."""

    def __init__(self, path: str, file: IO[bytes] | RawIOBase | None = None) -> None:
        """Open an archive, ``-`` is standard input; or read ``file``, which errors call ``path``.

        A ``file`` of which another thread may be reading when it is closed has to be raw: what buffers
        has a lock, which that thread holds.
        """
        self.path = path
        self._count = 0
        self._end = 0
        """Where the data of the last entry ends."""
        self._data: IO[bytes] | None = None
        self._damage: tuple[type[Exception], ...] = DAMAGE
        self._file = file or _open(path)
        try:
            stream = self._guard(lambda: self._decompressed(self._file))
            self._tar = self._guard(lambda: tarfile.open(fileobj=stream, mode="r|", tarinfo=Header))  # noqa: SIM115 - closed with its file
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
        while (member := self._member()) is not None:
            self._end = member.offset_data + (member.size if member.isreg() else 0)
            # tarfile would keep every header that it has seen
            self._tar.members = []  # type: ignore[attr-defined] # typeshed keeps it to itself
            self._count += 1
            if self._count > ENTRIES_LIMIT:
                raise OutOfRange(f"it has more than {ENTRIES_LIMIT} entries")
            name = _checked(member.name)
            if member.issym() or member.islnk():
                base = posixpath.dirname(name) if member.issym() else ""
                link = posixpath.normpath(posixpath.join("/", base, member.linkname)).lstrip("/")
                return Entry(name, 0, _checked(link))
            if member.isreg():
                self._data = self._tar.extractfile(member)
                return Entry(name, member.size)
        return None

    def _member(self) -> tarfile.TarInfo | None:
        try:
            return self._tar.next()
        except tarfile.ReadError:
            # tarfile wants the padding of the last file whole; others, Go's among them, do without.
            if 0 < self._end <= self._tar.fileobj.tell() < self._tar.offset:
                return None
            raise

    def _decompressed(self, file: IO[bytes] | RawIOBase) -> IO[bytes]:
        stream, damage = decompressed(file)
        self._damage = (*DAMAGE, *damage)
        return stream

    def _guard(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except (OutOfRange, InvalidArgument) as error:
            raise type(error)(f"archive {self.path}: {error}") from None
        except self._damage as error:
            reason = why(error).replace("is damaged", "is damaged or no tar file")
            raise InvalidArgument(f"archive {self.path} {reason}") from None
        except OSError as error:
            raise InvalidArgument(f"archive {self.path} cannot be read: {error.strerror or error}") from None


class Layout:
    """An OCI layout in a directory; reads only the files of a layout, and follows links to blobs alone."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._left = 0
        self._names = self._found()

    def close(self) -> None:
        """Close the file that is open."""
        if self._file:
            self._file.close()
            self._file = None

    def next(self) -> Entry | None:
        """Return the next regular file, None at the end."""
        self.close()
        try:
            for name in self._names:
                # A blob's digest is checked, so that a link to one leads to nothing else; bazel makes such layouts.
                follow = 0 if name.startswith("blobs/") else os.O_NOFOLLOW
                fd = os.open(Path(self.path, name), os.O_RDONLY | follow | os.O_NONBLOCK | os.O_CLOEXEC)
                self._file = os.fdopen(fd, "rb")
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise InvalidArgument(f"archive {self.path}: {name} is not a regular file")
                self._left = status.st_size
                return Entry(_checked(name), status.st_size)
        except OSError as error:
            raise InvalidArgument(f"archive {self.path}: {error.filename} cannot be read: {error.strerror}") from None
        return None

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes of the current file, at most its size when it was opened."""
        assert self._file is not None, "no file is being read"
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def _found(self) -> Iterator[str]:
        for name in ("oci-layout", "index.json"):
            if os.path.lexists(Path(self.path, name)):
                yield name
        for algorithm in _listed(Path(self.path, "blobs")):
            for digits in _listed(Path(self.path, "blobs", algorithm)):
                if DIGEST.fullmatch(f"{algorithm}:{digits}"):
                    yield f"blobs/{algorithm}/{digits}"


def _listed(path: Path) -> list[str]:
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []


def open_files(path: str) -> Files:
    """Open a directory with an OCI layout, or a file with an archive."""
    return Layout(path) if path != "-" and Path(path).is_dir() else Archive(path)


def _checked(name: str) -> str:
    """Return a name without redundant dots and slashes."""
    clean = os.fsencode(name).decode("utf-8", "backslashreplace")
    # Nothing of an image has such a name, and this is never a path: it is kept as the name of a file that belongs to
    # nothing.
    return clean if ".." in clean.split("/") else posixpath.normpath("/" + clean).lstrip("/")


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
