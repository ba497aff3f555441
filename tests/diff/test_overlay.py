"""The fast path: a layer for an overlay is written straight into its upper directory."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest

from windlass.contracts.diff import LAYER
from windlass.contracts.mounts import Mount
from windlass.errors import FailedPrecondition


class Place:
    """Two lower directories, an upper one, and their mount."""

    def __init__(self, path: Path) -> None:
        self.top, self.bottom, self.upper = path / "top", path / "bottom", path / "upper"
        for directory in (self.top, self.bottom, self.upper, path / "work", path / "merged"):
            directory.mkdir()
        self.merged = path / "merged"
        lower = f"lowerdir={self.top}:{self.bottom}"
        self.mount = Mount("overlay", "overlay", (f"workdir={path / 'work'}", f"upperdir={self.upper}", lower))

    def names(self) -> list[str]:
        """Mount the overlay and return all names that are seen in it."""
        options = ",".join(self.mount.options)
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(self.merged)], check=True)
        try:
            return sorted(str(path.relative_to(self.merged)) for path in self.merged.rglob("*"))
        finally:
            subprocess.run(["umount", str(self.merged)], check=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Directories on a tmpfs, which overlayfs takes as upper."""
    tmp = tmp_path / "tmpfs"
    tmp.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp)], check=True)
    try:
        yield Place(tmp)
    finally:
        subprocess.run(["umount", str(tmp)], check=True)


@pytest.fixture
def differ(zygote: Any, tmp_path: Path) -> Any:
    """A differ; the tmpfs of `place` is still mounted when the usual one is checked."""
    from windlass_diff.differ import WalkingDiffer

    return WalkingDiffer(zygote, tmp_path / "target", 30.0)


def test_whiteouts_become_overlays_own(differ: Any, place: Place, content: Any, members: Any) -> None:
    """A device 0/0 hides a file, an attribute makes a directory opaque; missing parents are made."""
    (place.bottom / "d").mkdir()
    (place.bottom / "d/old").touch()
    (place.bottom / "e/f").mkdir(parents=True)
    (place.bottom / "e/f/gone").touch()

    m = members().file("d/.wh..wh..opq").file("d/new").file("e/f/.wh.gone").file("e/f/stays")
    differ.apply(content, content.add(m.bytes(), LAYER), [place.mount])

    status = (place.upper / "e/f/gone").lstat()
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, 0)
    assert os.getxattr(place.upper / "d", "trusted.overlay.opaque") == b"y"
    assert place.names() == ["d", "d/new", "e", "e/f", "e/f/stays"]


def test_an_upper_directory_alone_keeps_its_whiteouts(differ: Any, place: Place, content: Any, members: Any) -> None:
    """As clients unpack layers side by side, to put them on each other when they are committed (rebase)."""
    (place.bottom / "d").mkdir()
    (place.bottom / "d/old").touch()
    (place.bottom / "gone").touch()
    alone = Mount("overlay", "overlay", (f"upperdir={place.upper}",))

    layer = members().file(".wh.gone").file("d/.wh..wh..opq").file("d/new").bytes()
    differ.apply(content, content.add(layer, LAYER), [alone])

    assert place.names() == ["d", "d/new"]


def test_a_directory_over_its_own_whiteout_hides_what_is_below(
    differ: Any, place: Place, content: Any, members: Any
) -> None:
    """Otherwise the directory that was removed would shine through."""
    (place.bottom / "d").mkdir()
    (place.bottom / "d/old").touch()
    differ.apply(content, content.add(members().file(".wh.d").dir("d").file("d/new").bytes(), LAYER), [place.mount])
    assert place.names() == ["d", "d/new"]


def test_parents_look_like_those_beneath(differ: Any, place: Place, content: Any, members: Any) -> None:
    """The uppermost layer that has the directory decides."""
    for lower, mode in ((place.bottom, 0o700), (place.top, 0o1777)):
        (lower / "p/q").mkdir(parents=True)
        (lower / "p/q").chmod(mode)
        os.chown(lower / "p/q", mode, 7)
    differ.apply(content, content.add(members().file("p/q/f").bytes(), LAYER), [place.mount])
    status = (place.upper / "p/q").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 0o1777, 7)


def test_a_hard_link_to_a_file_beneath_brings_a_copy(differ: Any, place: Place, content: Any, members: Any) -> None:
    """As overlayfs itself would do."""
    (place.bottom / "d").mkdir()
    (place.bottom / "d/f").write_text("below")
    differ.apply(content, content.add(members().link("h", "d/f").bytes(), LAYER), [place.mount])
    assert (place.upper / "h").read_text() == "below"
    assert (place.upper / "h").samefile(place.upper / "d/f")


def test_an_upper_directory_in_use_is_mounted(differ: Any, place: Place, content: Any, members: Any) -> None:
    """A second layer into one snapshot goes through overlayfs, so that its whiteouts mean the first layer too."""
    first = members().dir("d").file("d/a").file("b").bytes()
    second = members().file("d/.wh..wh..opq").file(".wh.b").file("c").bytes()
    for layer in (first, second):
        differ.apply(content, content.add(layer, LAYER), [place.mount])
    assert place.names() == ["c", "d"]


def test_an_overlay_that_need_not_be_written_is_mounted_any_number_of_times(
    differ: Any, place: Place, content: Any, members: Any
) -> None:
    """Linux refuses a work directory that was used with `volatile`, so the differ does without that option."""
    volatile = replace(place.mount, options=(*place.mount.options, "volatile"))
    for name in ("a", "b", "c"):
        differ.apply(content, content.add(members().file(name).bytes(), LAYER), [volatile])
    assert place.names() == ["a", "b", "c"]


def test_an_upper_directory_alone_is_filled_once(differ: Any, place: Place, content: Any, members: Any) -> None:
    """There is nothing to mount it on; the message says what to do."""
    alone = Mount("overlay", "overlay", (f"upperdir={place.upper}",))
    desc = content.add(members().file("a").bytes(), LAYER)
    differ.apply(content, desc, [alone])
    with pytest.raises(FailedPrecondition, match=rf"{place.upper} has files of another layer; prepare it anew"):
        differ.apply(content, desc, [alone])
