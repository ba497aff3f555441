"""The steps of an adoption: each is done and undone by a call or two of the system, and may be repeated at any time.

A process that is killed between two steps, or within one, leaves what the same step finds when it is done again, or
undone. Nothing is copied and nothing deleted, but for links and files that a step itself has made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, TypeAlias

from windlass.errors import DataLoss, FailedPrecondition
from windlass_linux import calls as linux
from windlass_linux import mounting
from windlass_snapshot_btrfs import subvolumes
from windlass_storage import disks

Fields: TypeAlias = dict[str, str | int]


class Step(Protocol):
    """One change of the machine."""

    kind: ClassVar[str]

    def do(self) -> None:
        """Make the change unless it is made. Raises OSError."""

    def undo(self) -> None:
        """Take the change back unless it is not made. Raises OSError."""


@dataclass(frozen=True)
class Move:
    """Renames a file or a directory, with all that is in it or mounted on it.

    It is known by its ``inode``, 0 for one that is not there yet or may be replaced meanwhile: that is where it was,
    or is not, as long as there is nothing at its target. Another file in its way is an error.
    """

    kind: ClassVar[str] = "move"
    source: str
    target: str
    inode: int = 0

    @classmethod
    def of(cls, source: Path, target: Path) -> Self:
        """Return the move of what is there now."""
        return cls(str(source), str(target), source.lstat().st_ino)

    def do(self) -> None:
        """See `Step`."""
        _rename(self.source, self.target, self.inode)

    def undo(self) -> None:
        """See `Step`."""
        _rename(self.target, self.source, self.inode)


@dataclass(frozen=True)
class Link:
    """Makes a symbolic link for those who know a path by its old name; a dead socket there goes."""

    kind: ClassVar[str] = "link"
    path: str
    target: str

    def do(self) -> None:
        """See `Step`."""
        path = Path(self.path)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        with contextlib.suppress(FileExistsError):
            path.symlink_to(self.target)

    def undo(self) -> None:
        """See `Step`."""
        path = Path(self.path)
        if path.is_symlink() and str(path.readlink()) == self.target:
            path.unlink()


@dataclass(frozen=True)
class Relink:
    """Makes a symbolic link lead elsewhere, in a directory that may have gone meanwhile."""

    kind: ClassVar[str] = "relink"
    path: str
    before: str
    after: str

    def do(self) -> None:
        """See `Step`."""
        self._point(self.after)

    def undo(self) -> None:
        """See `Step`."""
        self._point(self.before)

    def _point(self, target: str) -> None:
        path = Path(self.path)
        if not path.is_symlink() or str(path.readlink()) == target:
            return
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        temporary.symlink_to(target)
        temporary.rename(path)


@dataclass(frozen=True)
class Note:
    """Leaves a text in place of a database, so that containerd does not start on what it no longer has."""

    kind: ClassVar[str] = "note"
    path: str
    text: str

    def do(self) -> None:
        """See `Step`."""
        path = Path(self.path)
        if not path.exists():
            path.write_text(self.text)

    def undo(self) -> None:
        """See `Step`."""
        path = Path(self.path)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == len(self.text.encode()) and path.read_text(errors="replace") == self.text:
                path.unlink()


@dataclass(frozen=True)
class Remount:
    """Moves a mount to another directory: it is bound there, and its old place is detached."""

    kind: ClassVar[str] = "remount"
    source: str
    target: str

    def do(self) -> None:
        """See `Step`."""
        _remount(Path(self.source), Path(self.target))

    def undo(self) -> None:
        """See `Step`."""
        _remount(Path(self.target), Path(self.source))


@dataclass(frozen=True)
class Make:
    """Makes an empty directory; one that is not empty any more is kept under another name when this is undone."""

    kind: ClassVar[str] = "make"
    path: str

    def do(self) -> None:
        """See `Step`."""
        Path(self.path).mkdir(mode=0o700, parents=True, exist_ok=True)

    def undo(self) -> None:
        """See `Step`."""
        path = Path(self.path)
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            path.rename(path.with_name(f"{path.name}.windlass-{secrets.token_hex(4)}"))


@dataclass(frozen=True)
class MoveSubvolume:
    """Renames a subvolume of btrfs, which Linux allows for writable ones only."""

    kind: ClassVar[str] = "subvolume"
    source: str
    target: str
    frozen: bool

    def do(self) -> None:
        """See `Step`."""
        self._move(Path(self.source), Path(self.target))

    def undo(self) -> None:
        """See `Step`."""
        self._move(Path(self.target), Path(self.source))

    def _move(self, source: Path, target: Path) -> None:
        if not target.exists():
            if not source.exists():
                return
            subvolumes.freeze(source, False)
            source.rename(target)
        subvolumes.freeze(target, self.frozen)


ALL = (Move, Link, Relink, Note, Remount, Make, MoveSubvolume)
KINDS = {kind.kind: kind for kind in ALL}
AnyStep: TypeAlias = Move | Link | Relink | Note | Remount | Make | MoveSubvolume


def dump(step: AnyStep) -> Fields:
    """Return a step as JSON has it."""
    return {"kind": step.kind, **asdict(step)}


def load(fields: Fields) -> AnyStep:
    """Return the step that `dump` was given. Raises DataLoss."""
    try:
        given = dict(fields)
        kind: Callable[..., AnyStep] = KINDS[str(given.pop("kind"))]
        return kind(**given)
    except (KeyError, TypeError) as error:
        raise DataLoss(f"the journal of the adoption has a step that is not known: {error}") from None


def _rename(source: str, target: str, inode: int) -> None:
    """Rename, unless it is done: then there is something at the target, and what is at the source is another thing."""
    if not os.path.lexists(source) or (inode and os.lstat(source).st_ino != inode):
        return
    if os.path.lexists(target):
        if inode:
            raise FailedPrecondition(f"{target} is in the way of {source}; move it away")
        return
    parent = Path(target).parent
    if not parent.exists():
        disks.private_directory(parent)
    os.rename(source, target)  # noqa: PTH104 - of strings


def _remount(source: Path, target: Path) -> None:
    """Have the mount at ``target``, and at ``source`` a link to it, for specs that name it."""
    if source.is_symlink() or not source.is_mount():
        return
    if target.is_symlink():
        target.unlink()
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not target.is_mount():
        linux.mount(str(source), target, "", linux.MS_BIND)
    mounting.detach_all(source)
    source.rmdir()
    source.symlink_to(target)
