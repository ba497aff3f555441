"""Copies between trees: docker's rules for the two paths, and nothing that leads out of either tree."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from windlass.errors import DataLoss, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_client.copying import copy, places
from windlass_client.copying.packing import Exactly
from windlass_client.copying.tree import Tree, of_host
from windlass_client.copying.unpacking import Unpacker


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A container's root, next to a secret of the host."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    for name in ("etc", "tmp", "data/sub"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x\n")
    (root / "data/file").write_text("file")
    (root / "data/sub/deep").write_text("deep")
    (root / "data/link").symlink_to("file")
    return root


@pytest.fixture
def tree(inside: Path) -> Tree:
    found = of_host(str(inside))
    found.name = "box:"
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host."""
    directory = tmp_path / "host"
    (directory / "dir").mkdir(parents=True)
    (directory / "dir/a").write_text("a")
    (directory / "file").write_text("host")
    return directory


def listed(directory: Path) -> list[str]:
    return sorted(str(each.relative_to(directory)) for each in directory.rglob("*"))


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("box:/a", ("box", "/a")),
        ("box:a:b", ("box", "a:b")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("a", ("", "a")),
        ("-", ("", "-")),
    ],
)
def test_arguments(text: str, argument: tuple[str, str]) -> None:
    """A colon makes a container's, unless the path begins with a slash or a dot."""
    found = places.parse(text)
    assert (found.container, found.path) == argument


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("/data/file", "new", {"new": "file"}),
        ("/data/file", "file", {"file": "file"}),
        ("/data/file", "dir", {"dir/file": "file"}),
        ("/data/file", "dir/", {"dir/file": "file"}),
        ("/data", "new", {"new/file": "file", "new/sub/deep": "deep"}),
        ("/data", "dir", {"dir/data/file": "file", "dir/data/sub/deep": "deep", "dir/a": "a"}),
        ("/data/.", "new", {"new/file": "file", "new/sub/deep": "deep"}),
        ("/data/.", "dir", {"dir/file": "file", "dir/sub/deep": "deep", "dir/a": "a"}),
        ("/data/../data/file", "dir", {"dir/file": "file"}),
    ],
)
def test_out_of_a_container(tree: Tree, outside: Path, source: str, destination: str, expected: dict[str, str]) -> None:
    """To a new name, onto a file, or into a directory; `/.` is what is in a directory."""
    end = "/" if destination.endswith("/") else ""
    copy.out_of(tree, source, f"{outside / destination}{end}", follow=False, archive=False)
    assert {path: (outside / path).read_text() for path in expected} == expected
    assert (outside / destination).exists()


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("file", "/tmp", {"tmp/file": "host"}),
        ("file", "/tmp/new", {"tmp/new": "host"}),
        ("file", "/data/file", {"data/file": "host"}),
        ("file", "tmp", {"tmp/file": "host"}),
        ("dir", "/tmp", {"tmp/dir/a": "a"}),
        ("dir/", "/tmp", {"tmp/dir/a": "a"}),
        ("dir/.", "/tmp", {"tmp/a": "a"}),
        ("dir", "/tmp/new", {"tmp/new/a": "a"}),
    ],
)
def test_into_a_container(
    tree: Tree, inside: Path, outside: Path, source: str, destination: str, expected: dict[str, str]
) -> None:
    """By the same rules, whatever the directory that the client is in."""
    if os.geteuid():
        pytest.skip("needs root: files become root's")
    end = source[len(source.rstrip("/.")) :]
    copy.into(tree, destination, f"{outside / source.rstrip('/.')}{end}", follow=False, archive=False)
    assert {path: (inside / path).read_text() for path in expected} == expected


@pytest.mark.parametrize(
    ("source", "destination", "problem", "words"),
    [
        ("/none", "new", NotFound, "box:/none: there is no such file"),
        ("/data", "file", FailedPrecondition, "file is not a directory"),
        ("/data/file", "none/", NotFound, "there is no such directory"),
        ("/data/file", "none/x", NotFound, "there is no such file or directory"),
        ("/data/file/.", "new", Error, "box:/data/file/"),
    ],
)
def test_what_cannot_be_copied(
    tree: Tree, outside: Path, source: str, destination: str, problem: type[Error], words: str
) -> None:
    """The message names the path, and the host has what it had."""
    before = listed(outside)
    end = "/" if destination.endswith("/") else ""
    with pytest.raises(problem, match=words):
        copy.out_of(tree, source, f"{outside / destination}{end}", follow=False, archive=False)
    assert listed(outside) == before


def test_links_are_copied_as_links_unless_followed(tree: Tree, outside: Path) -> None:
    """-L copies what SOURCE points to."""
    copy.out_of(tree, "/data/link", str(outside / "link"), follow=False, archive=False)
    copy.out_of(tree, "/data/link", str(outside / "followed"), follow=True, archive=False)
    assert os.readlink(outside / "link") == "file"
    assert (outside / "followed").read_text() == "file" and not (outside / "followed").is_symlink()


@pytest.mark.parametrize("target", ["../../secret", "/../secret", "../../../../../../etc/hostname"])
def test_no_link_of_a_container_leads_out(tree: Tree, inside: Path, outside: Path, target: str) -> None:
    """Reading through one finds what is inside, or nothing."""
    (inside / "data/escape").symlink_to(target)
    (inside / "up").symlink_to("../..")
    for path in ("/data/escape", "/up/secret", "/up/../secret", "/data/../../secret"):
        with pytest.raises(NotFound):
            copy.out_of(tree, path, str(outside / "got"), follow=True, archive=False)
    assert not (outside / "got").exists()


def test_writing_through_a_link_stays_inside(tree: Tree, inside: Path, outside: Path) -> None:
    """`/tmp/up` points to the host's directory, seen from the host; from inside it is the container's own root."""
    if os.geteuid():
        pytest.skip("needs root: files become root's")
    (inside / "tmp/up").symlink_to("/../..")
    copy.into(tree, "/tmp/up", str(outside / "file"), follow=False, archive=False)
    assert (inside / "file").read_text() == "host"
    assert not (inside.parent / "file").exists()


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    return out


def named(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, target, mode
    entry.uid, entry.gid = os.getuid(), os.getgid()
    return entry


def test_an_archive_that_leads_up_is_refused(tree: Tree, inside: Path) -> None:
    """By its names, and by the links that it makes itself."""
    for bad in (archive((named("../x"), b"x")), archive((named("a/../../x"), b"x"))):
        with pytest.raises(InvalidArgument, match="leads out of its directory"):
            copy.stream_in(tree, "/tmp", bad)
    through = archive((named("out", tarfile.SYMTYPE, "../.."), b""), (named("out/x"), b"x"))
    copy.stream_in(tree, "/tmp", through)
    assert not (inside.parent / "x").exists() and (inside / "x").exists()
    hard = archive((named("hard", tarfile.LNKTYPE, "../../secret"), b""))
    with pytest.raises(InvalidArgument, match="leads out of its directory"):
        copy.stream_in(tree, "/tmp", hard)
    absolute = archive((named("/etc/absolute"), b"x"))
    copy.stream_in(tree, "/tmp", absolute)
    assert (inside / "tmp/etc/absolute").exists()


def test_what_is_not_an_archive(tree: Tree, inside: Path) -> None:
    """Nor a directory to unpack it in."""
    with pytest.raises(DataLoss, match="the archive is broken"):
        copy.stream_in(tree, "/tmp", io.BytesIO(b"x" * 2000))
    with pytest.raises(FailedPrecondition, match="box:/etc/passwd is not a directory"):
        copy.stream_in(tree, "/etc/passwd", archive((named("a"), b"")))
    broken = io.BytesIO(archive((named("a"), b"x" * 5000)).getvalue()[:2000])
    with pytest.raises(DataLoss):
        copy.stream_in(tree, "/tmp", broken)


def test_files_and_directories_do_not_take_each_others_place(tree: Tree, inside: Path) -> None:
    """Each kind replaces its own."""
    with pytest.raises(FailedPrecondition, match="/tmp/d is a directory; a file cannot take its place"):
        copy.stream_in(tree, "/", archive((named("tmp/d/", tarfile.DIRTYPE, mode=0o755), b""), (named("tmp/d"), b"")))
    with pytest.raises(FailedPrecondition, match="is not a directory; a directory cannot take its place"):
        copy.stream_in(tree, "/etc", archive((named("passwd", tarfile.DIRTYPE), b"")))
    assert (inside / "etc/passwd").read_text() == "root:x\n"


def test_what_gives_power_does_not_come_to_the_host(tree: Tree, inside: Path, outside: Path) -> None:
    """Set-user-ID bits and devices are a stranger's; they stay in a copy within the container."""
    entries = [(named("suid", mode=0o4755), b"x"), (named("null", tarfile.CHRTYPE), b"")]
    with of_host(str(outside)) as host:
        Unpacker(host, trusted=False, owners=False).unpack(archive(*entries))
    assert stat.S_IMODE((outside / "suid").stat().st_mode) == 0o755
    assert not (outside / "null").exists()
    copy.stream_in(tree, "/tmp", archive(entries[0]))
    assert stat.S_IMODE((inside / "tmp/suid").stat().st_mode) == 0o4755


def test_links_modes_and_times_come_along(tree: Tree, inside: Path, outside: Path) -> None:
    """Hard links are one file again, a directory that cannot be written is full, FIFOs are not read."""
    os.link(inside / "data/file", inside / "data/second")
    os.mkfifo(inside / "data/fifo")
    os.utime(inside / "data/sub/deep", (1000, 1000))
    (inside / "data/sub").chmod(0o555)
    copy.out_of(tree, "/data", str(outside / "new"), follow=False, archive=False)
    assert (outside / "new/file").samefile(outside / "new/second")
    assert stat.S_ISFIFO((outside / "new/fifo").lstat().st_mode)
    assert (outside / "new/sub/deep").stat().st_mtime == 1000
    assert stat.S_IMODE((outside / "new/sub").stat().st_mode) == 0o555


@pytest.mark.parametrize("swapped", ["directory", "file"])
def test_a_container_that_swaps_links_meanwhile(tree: Tree, inside: Path, outside: Path, swapped: str) -> None:
    """However often, nothing of the host is read, and nothing is written to it."""
    (inside.parent / "stolen").mkdir()
    (inside.parent / "stolen/key").write_text("secret")
    place, spare = inside / "data/sub", inside / "data/spare"
    spare.symlink_to("../../stolen" if swapped == "directory" else "../../secret")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for first, second in (
                (place, inside / "data/x"),
                (spare, place),
                (place, spare),
                (inside / "data/x", place),
            ):
                os.rename(first, second)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(30):
            attempt(partial(copy.out_of, tree, "/data", str(outside / f"got{number}"), follow=False, archive=False))
            attempt(lambda: copy.stream_in(tree, "/data/sub", archive((named("written"), b"x"))))
    finally:
        ended.set()
        thread.join()
    files = [each for each in outside.rglob("*") if each.is_file() and not each.is_symlink()]
    assert all("secret" not in each.read_text() for each in files)
    assert listed(inside.parent / "stolen") == ["key"] and (inside.parent / "secret").read_text() == "secret"


def attempt(step: Callable[[], object]) -> None:
    try:
        step()
    except Error:
        pass


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """Its entry has the size that was announced."""
    assert Exactly(io.BytesIO(b"abc"), 5).read() == b"abc\0\0"
    assert Exactly(io.BytesIO(b"abcdef"), 4).read() == b"abcd"
