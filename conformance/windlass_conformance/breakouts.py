"""The promises of a differ to the files around its target: no entry, whatever its name, leaves the target.

Part of `windlass_conformance.differs.DifferSuite`; the cases are the breakout table of docs/containerd 8.5.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass.errors import Error
from windlass_conformance.layer_archives import Archive, bind, put

Add = Callable[[Archive], Archive]

INSIDE: dict[str, tuple[Add, str]] = {
    "absolute symlink": (lambda a: a.symlink("l", "/").file("l/new", b"x"), "new"),
    "symlink up and out": (lambda a: a.symlink("l", "../../..").file("l/new", b"x"), "new"),
    "chain of absolute symlinks": (lambda a: a.symlink("k", "/").symlink("l", "/k").file("l/new", b"x"), "new"),
    "chain of relative symlinks": (lambda a: a.symlink("k", "..").symlink("l", "k/..").file("l/new", b"x"), "new"),
    "symlink to a directory below": (lambda a: a.dir("d").symlink("l", "/d").file("l/new", b"x"), "d/new"),
    "dots in the name": (lambda a: a.file("../../new", b"x"), "new"),
    "an absolute name": (lambda a: a.file("/new", b"x"), "new"),
    "dots in the middle": (lambda a: a.dir("d").file("d/../../../new", b"x"), "new"),
    "a trailing slash": (lambda a: a.dir("d/").file("d//new", b"x"), "d/new"),
    "hard link through a symlink": (lambda a: a.file("f", b"x").symlink("l", "/").link("new", "l/f"), "new"),
    "hard link through dots": (lambda a: a.file("f", b"x").link("new", "../../f"), "new"),
    "hard link with an absolute target": (lambda a: a.file("f", b"x").link("new", "/f"), "new"),
    "hard link below a chain": (
        lambda a: a.file("f", b"x").symlink("k", "/").symlink("l", "k").link("new", "l/f"),
        "new",
    ),
    "a directory that becomes a symlink": (
        lambda a: a.dir("d").symlink("d", "/").dir("d").file("d/new", b"x"),
        "d/new",
    ),
}
"""Layers, and the place of the file that they contain."""

REFUSED: dict[str, Add] = {
    "whiteout of the parent": lambda a: a.file(".wh..."),
    "whiteout of the directory itself": lambda a: a.file(".wh.."),
    "whiteout of the parent, below": lambda a: a.dir("d").file("d/.wh..."),
    "whiteout of the directory, below": lambda a: a.dir("d").file("d/.wh.."),
}

HARMLESS: dict[str, Add] = {
    "whiteout through a symlink": lambda a: a.symlink("l", "../outside").file("l/.wh.file"),
    "whiteout through dots": lambda a: a.file("../outside/.wh.file"),
    "whiteout of a symlink": lambda a: a.symlink("l", "../outside").file(".wh.l"),
    "whiteout below a dangling symlink": lambda a: a.symlink("l", "nowhere").file("l/.wh.x"),
    "whiteout of a cleaned name": lambda a: a.dir("x").file("y").file("x/../.wh.y"),
    "opaque through a symlink": lambda a: a.symlink("l", "../outside").file("l/.wh..wh..opq"),
    "file over a symlink": lambda a: a.symlink("l", "../outside/file").file("l", b"changed"),
    "empty file over a symlink": lambda a: a.symlink("l", "../outside/file").file("l"),
    "hard link to a symlink": lambda a: a.symlink("l", "../outside/file").link("m", "l", 0o777),
    "symlink named by dots": lambda a: a.symlink("..", "/nowhere"),
    "directory named like a whiteout": lambda a: a.dir(".wh.d").file(".wh.d/x"),
    "mode of a directory through a symlink": lambda a: a.symlink("l", "../outside").dir("l", 0o777),
    "directory and symlink in turn": lambda a: a.dir("d").symlink("d", "/").symlink("d", "../outside").dir("d", 0o777),
}
"""Layers that do nothing outside; `test_nothing_outside_is_touched` looks there."""


class BreakoutCases:
    """Things that a hostile layer cannot do."""

    @pytest.fixture
    def differ(self) -> Differ:
        """Give the differ under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the differ under test")

    @pytest.fixture
    def store(self) -> ContentStore:
        """Give the store of its layers; the subclass provides it."""
        raise NotImplementedError("the subclass provides the content store that the differ uses")

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Give an empty directory next to one that must not change."""
        root, outside = tmp_path / "root", tmp_path / "outside"
        root.mkdir()
        outside.mkdir()
        (outside / "file").write_text("precious")
        (outside / "file").chmod(0o600)
        outside.chmod(0o700)
        return root

    @pytest.mark.parametrize("case", list(INSIDE))
    def test_names_end_up_inside(self, differ: Differ, store: ContentStore, root: Path, case: str) -> None:
        """A file whose name leads out of the target by links or dots is made inside it."""
        add, place = INSIDE[case]

        differ.apply(store, put(store, add(Archive()).bytes()), bind(root))

        assert (root / place).read_bytes() == b"x"
        assert not (root / place).is_symlink()
        _unharmed(root)

    @pytest.mark.parametrize("case", list(REFUSED))
    def test_whiteouts_of_no_name_are_refused(self, differ: Differ, store: ContentStore, root: Path, case: str) -> None:
        """A whiteout that names the directory that it is in, or the one above, is refused."""
        with pytest.raises(Error):
            differ.apply(store, put(store, REFUSED[case](Archive()).bytes()), bind(root))
        _unharmed(root)

    @pytest.mark.parametrize("case", list(HARMLESS))
    def test_nothing_outside_is_touched(self, differ: Differ, store: ContentStore, root: Path, case: str) -> None:
        """Whatever a layer does with links, whiteouts and modes, files around the target do not change."""
        try:
            differ.apply(store, put(store, HARMLESS[case](Archive()).bytes()), bind(root))
        except Error:
            pass  # to refuse it is as good
        _unharmed(root)

    def test_a_hard_link_to_a_symlink_is_one_of_the_link(self, differ: Differ, store: ContentStore, root: Path) -> None:
        """A hard link to a symbolic link is a further name of the link, never of what it points to."""
        layer = Archive().file("f", b"x").symlink("l", "f").link("m", "l").bytes()
        differ.apply(store, put(store, layer), bind(root))
        assert (root / "m").is_symlink() and (root / "m").lstat().st_ino == (root / "l").lstat().st_ino

    @pytest.mark.parametrize("number", [-1, 1 << 40], ids=["negative", "huge"])
    def test_impossible_devices_are_refused(self, differ: Differ, store: ContentStore, root: Path, number: int) -> None:
        """A device number that Linux cannot represent does not become another number."""
        header = tarfile.TarInfo("device")
        header.type, header.devmajor, header.devminor = tarfile.CHRTYPE, 1, 1
        data = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        data[329:337] = b"\xff" * 8 if number < 0 else b"\x80\x00" + number.to_bytes(6, "big")
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data)
        with pytest.raises(Error):
            differ.apply(store, put(store, bytes(data) + bytes(1024)), bind(root))
        assert not (root / "device").exists() or not stat.S_ISCHR((root / "device").lstat().st_mode)


def _unharmed(root: Path) -> None:
    outside = root.parent / "outside"
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious"
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root"]
