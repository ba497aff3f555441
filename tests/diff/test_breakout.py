"""Archives that try to write outside their root, or to be read two ways (docs/containerd 8.5, "Breakout table")."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Any: the builder lives in conftest, which tests cannot import.
from typing import Any

import pytest

from windlass.errors import InvalidArgument

Build = Callable[[Any], Any]
Check = Callable[[Path], bool]


def text(path: Path) -> str:
    return path.read_text() if path.is_file() and not path.is_symlink() else ""


def etc(m: Any) -> Any:
    return m.dir("etc").file("etc/passwd", b"inside")


#: name, archive, what holds afterwards; OUT is replaced by a directory outside of the root.
HOLDS: list[tuple[str, Build, Check]] = [
    (
        "an absolute link as parent leads inside",
        lambda m: etc(m).symlink("l", "/etc").file("l/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "a link up and out as parent leads inside",
        lambda m: etc(m).symlink("l", "../../../../etc").file("l/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "chained absolute links lead inside",
        lambda m: etc(m).symlink("a", "/etc").symlink("b", "/a").file("b/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "chained relative links lead inside",
        lambda m: etc(m).symlink("a", "../etc").symlink("b", "../../a").file("b/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "a link to the root leads to the root",
        lambda m: etc(m).symlink("l", "/").file("l/etc/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "a link beside its directory leads inside",
        lambda m: etc(m).dir("d").symlink("d/l", "../../etc").file("d/l/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new",
    ),
    (
        "a link to a directory outside creates it inside",
        lambda m: m.symlink("l", "OUT").file("l/new", b"x"),
        lambda r: (r.parent / "outside").is_dir() and text(Path(str(r) + str(r.parent / "outside")) / "new") == "x",
    ),
    (
        "an empty file through a link truncates what is inside",
        lambda m: etc(m).symlink("l", "/etc").file("l/passwd"),
        lambda r: (r / "etc/passwd").read_bytes() == b"",
    ),
    (
        "a file over a link replaces the link",
        lambda m: etc(m).symlink("l", "/etc/passwd").file("l", b"new"),
        lambda r: text(r / "l") == "new" and text(r / "etc/passwd") == "inside",
    ),
    (
        "a name with dots is cleaned",
        lambda m: m.dir("a").file("a/../../../b", b"x"),
        lambda r: text(r / "b") == "x",
    ),
    (
        "an absolute name is below the root",
        lambda m: m.file("/etc/x", b"x"),
        lambda r: text(r / "etc/x") == "x",
    ),
    (
        "a hard link to an absolute name is inside",
        lambda m: etc(m).link("h", "/etc/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link up and out is inside",
        lambda m: etc(m).link("h", "../../../etc/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link through an absolute link is inside",
        lambda m: etc(m).symlink("l", "/etc").link("h", "l/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link through a link up and out is inside",
        lambda m: etc(m).symlink("l", "../../etc").link("h", "l/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link through chained links is inside",
        lambda m: etc(m).symlink("a", "/etc").symlink("b", "/a").link("h", "b/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link through a link and back is inside",
        lambda m: etc(m).dir("d").symlink("d/l", "/etc").link("h", "d/l/../etc/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link through a directory that is not there is inside",
        lambda m: etc(m).link("h", "nothing/../etc/passwd"),
        lambda r: (r / "h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link with a parent that is not there makes it",
        lambda m: etc(m).link("new/dir/h", "etc/passwd"),
        lambda r: (r / "new/dir/h").samefile(r / "etc/passwd"),
    ),
    (
        "a hard link to itself is left alone",
        lambda m: etc(m).link("etc/passwd", "etc/passwd"),
        lambda r: text(r / "etc/passwd") == "inside",
    ),
    (
        "a hard link to a link links the link, whose target exists",
        lambda m: etc(m).symlink("l", "/etc/passwd").link("h", "l"),
        lambda r: os.readlink(r / "h") == "/etc/passwd" and (r / "h").lstat().st_ino == (r / "l").lstat().st_ino,
    ),
    (
        "a hard link to a link links the link, whose target comes later",
        lambda m: m.symlink("l", "/etc/passwd").link("h", "l").dir("etc").file("etc/passwd", b"late"),
        lambda r: os.readlink(r / "h") == "/etc/passwd" and text(r / "etc/passwd") == "late",
    ),
    (
        "the mode of a hard link to a link is nobody else's",
        lambda m: etc(m).symlink("l", "/etc/passwd").link("h", "l", 0o777),
        lambda r: (r / "etc/passwd").stat().st_mode & 0o777 == 0o644,
    ),
    (
        "the mode of a hard link to a link does not reach outside",
        lambda m: m.symlink("l", "OUT/file").link("h", "l", 0o777),
        lambda r: (r.parent / "outside/file").stat().st_mode & 0o777 == 0o600,
    ),
    (
        "an entry that is the root's parent is ignored",
        lambda m: m.symlink("..", "OUT").file("x", b"x"),
        lambda r: text(r / "x") == "x" and not r.is_symlink(),
    ),
    (
        "an entry without a name is ignored",
        lambda m: m.symlink("", "OUT").file("x", b"x"),
        lambda r: text(r / "x") == "x" and not r.is_symlink(),
    ),
    (
        "an entry that is the root is ignored",
        lambda m: m.dir("./", 0o700).file("./x", b"x"),
        lambda r: text(r / "x") == "x" and r.stat().st_mode & 0o777 == 0o755,
    ),
    (
        "slashes at the end of a name do not matter",
        lambda m: m.dir("d//").file("d/f", b"x"),
        lambda r: text(r / "d/f") == "x",
    ),
    (
        "a directory is replaced by a link",
        lambda m: etc(m).symlink("etc", "/elsewhere"),
        lambda r: os.readlink(r / "etc") == "/elsewhere",
    ),
    (
        "a link is replaced by a directory",
        lambda m: m.symlink("etc", "OUT").dir("etc").file("etc/passwd", b"new"),
        lambda r: text(r / "etc/passwd") == "new" and not (r.parent / "outside/passwd").exists(),
    ),
    (
        "a file over one of two hard links breaks the link",
        lambda m: etc(m).link("h", "etc/passwd").file("h", b"own"),
        lambda r: text(r / "h") == "own" and text(r / "etc/passwd") == "inside",
    ),
    (
        "a whiteout of a link removes the link only",
        lambda m: etc(m).symlink("l", "/etc/passwd").file(".wh.l"),
        lambda r: not (r / "l").is_symlink() and text(r / "etc/passwd") == "inside",
    ),
    (
        "a whiteout through a linked directory removes what is inside",
        lambda m: etc(m).symlink("l", "/etc").file("l/.wh.passwd"),
        lambda r: (r / "etc").is_dir() and not (r / "etc/passwd").exists(),
    ),
    (
        "a whiteout through a link outside leaves the outside alone",
        lambda m: m.symlink("l", "OUT").file("l/.wh.file"),
        lambda r: (r.parent / "outside/file").exists(),
    ),
    (
        "a directory named as a whiteout is a directory",
        lambda m: m.dir(".wh.x").file(".wh.x/child", b"x"),
        lambda r: text(r / ".wh.x/child") == "x",
    ),
    (
        "a whiteout below a dangling link is harmless",
        lambda m: m.symlink("l", "/nowhere").file("l/.wh.x").file("f", b"x"),
        lambda r: text(r / "f") == "x" and os.readlink(r / "l") == "/nowhere",
    ),
    (
        "a whiteout with dots removes what the cleaned name says",
        lambda m: etc(m).dir("x").file("x/../.wh.etc"),
        lambda r: (r / "x").is_dir() and not (r / "etc").exists(),
    ),
    (
        "a whiteout of a name that looks like one is a whiteout",
        lambda m: m.file("f", b"x").file(".wh..wh.x"),
        lambda r: os.listdir(r) == ["f"],
    ),
    (
        "a directory that flips to a link to the root and back writes inside",
        lambda m: m.dir("d").symlink("d", "/").dir("d").file("d/f", b"x"),
        lambda r: text(r / "d/f") == "x" and not (r / "f").exists(),
    ),
    (
        "the times of a directory that became a link are nobody else's",
        lambda m: m.dir("d").symlink("d", "OUT"),
        lambda r: (r.parent / "outside").stat().st_mtime > 1_700_000_000,
    ),
]


@pytest.mark.parametrize(("build", "check"), [case[1:] for case in HOLDS], ids=[case[0] for case in HOLDS])
def test_breakout(build: Build, check: Check, members: Any, apply: Any, root: Path) -> None:
    """What the case's name says holds, and nothing outside of the root has changed."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    (outside / "file").chmod(0o600)

    class Placed(members):  # type: ignore[misc]  # a fixture gives the class
        def add(self, name: str, kind: bytes, *args: Any, **fields: Any) -> Any:
            if "linkname" in fields:
                fields["linkname"] = fields["linkname"].replace("OUT", str(outside))
            return super().add(name, kind, *args, **fields)

    apply(build(Placed()).bytes(), root)

    assert check(root)
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "untouched"
    assert sorted(os.listdir(root.parent)) == ["outside", "root", "target"]


@pytest.mark.parametrize("name", [".wh..", ".wh...", ".wh.", "etc/.wh..", "etc/.wh...", "etc/.wh."])
def test_a_whiteout_of_nothing_or_of_dots_is_refused(name: str, members: Any, apply: Any, root: Path) -> None:
    """It would remove the directory that it is in, or the one above; the message names the entry."""
    with pytest.raises(InvalidArgument, match=name.replace(".", r"\.")):
        apply(etc(members()).file(name).bytes(), root)

    assert text(root / "etc/passwd") == "inside"
