"""The promises of `windlass.contracts.diff.Differ`, one test each.

The cases are those of docs/containerd 8.5. The subclass provides the fixtures ``differ`` and ``store``,
the content store that the differ takes layers from and puts them into. Layers are applied onto bind
mounts of directories, so the differ has to see the files of this machine.
"""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LABEL_UNCOMPRESSED, LAYER, LAYER_GZIP, CompareOptions, Differ
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor
from windlass.errors import Error, NotFound, Unimplemented
from windlass_conformance.breakouts import BreakoutCases
from windlass_conformance.layer_archives import (
    ROOTED,
    TIME,
    Archive,
    Facts,
    bind,
    digest_of,
    facts,
    get,
    members,
    put,
)
from windlass_conformance.snapshot_files import needs_root


@needs_root
class DifferSuite(BreakoutCases):
    """The promises of a differ; the module says how to run the suite."""

    certifies = "differ"

    # Applying

    @pytest.mark.parametrize("media_type", [LAYER, LAYER_GZIP])
    def test_apply_tells_the_plain_tar(
        self, differ: Differ, store: ContentStore, tmp_path: Path, media_type: str
    ) -> None:
        """Apply returns type, digest and size of the layer's plain tar, whatever its compression."""
        archive = Archive().file("foo", b"content").bytes()

        applied = differ.apply(store, put(store, archive, media_type), bind(_new(tmp_path)))

        assert (applied.media_type, applied.digest, applied.size) == (LAYER, digest_of(archive), len(archive))
        assert (tmp_path / "root/foo").read_bytes() == b"content"

    def test_entries_are_what_the_layer_says(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """Mode, owner, time, links, devices and FIFOs are those of the layer."""
        archive = (
            Archive()
            .dir("etc", 0o711, uid=5, gid=6)
            .file("etc/set", b"x", 0o4751, uid=7, gid=8)
            .link("etc/again", "etc/set", 0o4751, uid=7, gid=8)
            .symlink("etc/there", "../nowhere")
            .add("etc/pipe", tarfile.FIFOTYPE, mode=0o620)
            .add("etc/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)
        )
        root = _new(tmp_path)

        differ.apply(store, put(store, archive.bytes()), bind(root))

        status = (root / "etc/set").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o4751, 7, 8, 2)
        assert status.st_mtime == TIME
        assert (root / "etc/again").stat().st_ino == status.st_ino
        assert str((root / "etc/there").readlink()) == "../nowhere"
        assert stat.S_ISFIFO((root / "etc/pipe").lstat().st_mode)
        null = (root / "etc/null").lstat()
        assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3)
        directory = (root / "etc").stat()
        assert (stat.S_IMODE(directory.st_mode), directory.st_uid, directory.st_gid) == (0o711, 5, 6)
        assert directory.st_mtime == TIME, "a directory's time is set after its files are made"

    def test_extended_attributes_are_set(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """Attributes of PAX records are set, capabilities among them."""
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        records = {
            "SCHILY.xattr.user.test": "value",
            "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
        }
        root = _new(tmp_path)

        differ.apply(store, put(store, Archive().file("foo", pax_headers=records).bytes()), bind(root))

        assert os.getxattr(root / "foo", "security.capability") == capability
        if "user.test" not in os.listxattr(root / "foo"):
            pytest.skip("the file system of the temporary directory has no user attributes")
        assert os.getxattr(root / "foo", "user.test") == b"value"

    def test_parents_without_entry_are_made(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """Missing parent directories are made."""
        root = _new(tmp_path)
        differ.apply(store, put(store, Archive().file("a/b/c", b"x").bytes()), bind(root))
        assert (root / "a/b/c").read_bytes() == b"x"

    def test_a_whiteout_removes(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A whiteout removes what it names, and all below it, and leaves nothing of itself."""
        root = _new(tmp_path)
        differ.apply(store, put(store, Archive().dir("d").file("d/x").file("f").file("stays").bytes()), bind(root))
        differ.apply(store, put(store, Archive().file(".wh.d").file(".wh.f").file(".wh.none").bytes()), bind(root))
        assert sorted(facts(root)) == ["stays"]

    def test_an_opaque_directory_hides_what_was_below(
        self, differ: Differ, store: ContentStore, tmp_path: Path
    ) -> None:
        """An opaque marker removes the directory's old entries and spares those of its own layer."""
        root = _new(tmp_path)
        differ.apply(store, put(store, Archive().dir("d").file("d/old").dir("d/e").bytes()), bind(root))
        archive = Archive().dir("d").file("d/new").file("d/.wh..wh..opq").file("d/late")
        differ.apply(store, put(store, archive.bytes()), bind(root))
        assert sorted(facts(root)) == ["d", "d/late", "d/new"]

    def test_types_may_change(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A directory becomes a link, a link a directory, a file another file, and nothing outside is touched."""
        root = _new(tmp_path)
        first = Archive().dir("d").file("d/x").symlink("l", "d").file("f", b"1").link("g", "f")
        differ.apply(store, put(store, first.bytes()), bind(root))
        second = Archive().symlink("d", "/nowhere").dir("l").file("l/y").file("f", b"2")
        differ.apply(store, put(store, second.bytes()), bind(root))
        assert str((root / "d").readlink()) == "/nowhere"
        assert (root / "l/y").exists() and not (root / "l").is_symlink()
        assert ((root / "f").read_bytes(), (root / "g").read_bytes()) == (b"2", b"1"), (
            "a link is broken, not written to"
        )

    def test_a_damaged_layer_is_refused(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A layer that is cut short, or that is not an archive, is an error, not a smaller tree."""
        archive = Archive().file("foo", os.urandom(100_000)).bytes()
        packed = gzip.compress(archive)
        for number, data in enumerate((packed[: len(packed) // 2], b"<html>" * 1000)):
            root = _new(tmp_path, f"root-{number}")
            desc = put(store, data)
            with pytest.raises(Error):
                differ.apply(store, Descriptor(LAYER_GZIP, desc.digest, desc.size), bind(root))

    def test_a_layer_that_is_missing_is_not_found(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A blob that the store does not have is NotFound."""
        with pytest.raises(NotFound):
            differ.apply(store, Descriptor(LAYER, "sha256:" + "0" * 64, 10), bind(_new(tmp_path)))

    def test_an_unknown_type_is_left_to_others(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A media type that the differ does not know is Unimplemented, so that the next is asked."""
        desc = put(store, b"text")
        with pytest.raises(Unimplemented):
            differ.apply(store, Descriptor("text/plain", desc.digest, desc.size), bind(_new(tmp_path)))

    # Comparing

    def test_equal_trees_make_an_empty_layer(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A layer of equal trees has no entry."""
        lower, upper = _sides(tmp_path)
        assert self._made(differ, store, lower, upper) == []

    def test_changes_come_with_their_parents(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """Parents come first and once; unchanged entries do not come."""
        lower, upper = _sides(tmp_path)
        (upper / "a/b/new").write_text("new")
        (upper / "a/c/f").write_text("longer than before")
        assert self._made(differ, store, lower, upper) == ["a/", "a/b/", "a/b/new", "a/c/", "a/c/f"]

    def test_deletions_are_whiteouts(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A removed tree is one whiteout, with nothing below it."""
        lower, upper = _sides(tmp_path)
        shutil.rmtree(upper / "a/b")
        (upper / "z/f").unlink()
        assert self._made(differ, store, lower, upper) == ["a/", "a/.wh.b", "z/", "z/.wh.f"]

    def test_a_changed_mode_is_a_change(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """Modes and owners of files and directories are compared."""
        lower, upper = _sides(tmp_path)
        (upper / "a/b").chmod(0o700)
        os.chown(upper / "z/f", 5, 5)
        assert self._made(differ, store, lower, upper) == ["a/", "a/b/", "z/", "z/f"]

    def test_a_new_name_brings_the_other(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A new hard link comes with the file that it is a name of, the name that sorts first with the content."""
        lower, upper = _sides(tmp_path)
        os.link(upper / "a/b/f", upper / "a/b/e")
        assert self._made(differ, store, lower, upper) == ["a/", "a/b/", "a/b/e", "a/b/f -> a/b/e"]

    def test_sockets_are_left_out(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A socket is not part of a layer."""
        lower, upper = _sides(tmp_path)
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(upper)
            try:
                bound.bind("sock")
            finally:
                os.chdir("/")
        assert self._made(differ, store, lower, upper) == []

    def test_what_is_made_is_applied_to_the_same_tree(
        self, differ: Differ, store: ContentStore, tmp_path: Path
    ) -> None:
        """The lower tree with the layer applied is the upper tree, in every fact."""
        lower, upper = _sides(tmp_path)
        _change(upper)
        desc = differ.compare(store, bind(lower, "ro"), bind(upper, "ro"), CompareOptions(labels=ROOTED))

        differ.apply(store, desc, bind(lower))

        assert _without_directory_times(facts(lower)) == _without_directory_times(facts(upper))

    def test_layers_are_described_and_labelled(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """The blob is what the descriptor says, and a compressed one is labelled with its plain digest."""
        lower, upper = _sides(tmp_path)
        (upper / "new").write_text("new")

        desc = differ.compare(
            store, bind(lower, "ro"), bind(upper, "ro"), CompareOptions(LAYER_GZIP, labels={**ROOTED, "mine": "yes"})
        )

        data = get(store, desc)
        assert (desc.media_type, desc.digest, desc.size) == (LAYER_GZIP, digest_of(data), len(data))
        labels = store.info(desc.digest).labels
        assert labels.get(LABEL_UNCOMPRESSED) == digest_of(gzip.decompress(data))
        assert labels.get("mine") == "yes"

    def test_the_same_trees_make_the_same_bytes(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A layer is made again byte for byte."""
        lower, upper = _sides(tmp_path)
        _change(upper)
        options = CompareOptions(LAYER, labels=ROOTED, source_date_epoch=TIME * 10**9)
        made = {differ.compare(store, bind(lower, "ro"), bind(upper, "ro"), options).digest for _ in range(3)}
        assert len(made) == 1

    def test_an_unknown_type_is_not_made(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """A media type that the differ cannot make is Unimplemented."""
        lower, upper = _sides(tmp_path)
        with pytest.raises(Unimplemented):
            differ.compare(store, bind(lower, "ro"), bind(upper, "ro"), CompareOptions("text/plain"))

    def test_nothing_is_left_mounted(self, differ: Differ, store: ContentStore, tmp_path: Path) -> None:
        """After both calls, also after those that failed, the directories can be removed."""
        lower, upper = _sides(tmp_path)
        root = _new(tmp_path)
        (upper / "new").write_text("new")
        desc = differ.compare(store, bind(lower, "ro"), bind(upper, "ro"), CompareOptions(labels=ROOTED))
        differ.apply(store, desc, bind(root))
        with pytest.raises(Error):
            differ.apply(store, desc, (Mount("bind", str(tmp_path / "none"), ("rbind", "rw")),))
        mounted = Path("/proc/self/mountinfo").read_text()
        assert str(tmp_path) not in mounted
        shutil.rmtree(root)

    def _made(self, differ: Differ, store: ContentStore, lower: Path, upper: Path) -> list[str]:
        desc = differ.compare(store, bind(lower, "ro"), bind(upper, "ro"), CompareOptions(LAYER, labels=ROOTED))
        return members(get(store, desc))


def _new(tmp_path: Path, name: str = "root") -> Path:
    root = tmp_path / name
    root.mkdir()
    return root


def _sides(tmp_path: Path) -> tuple[Path, Path]:
    """Return two equal trees."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("a/b", "a/c", "z"):
        (lower / name).mkdir(parents=True)
        (lower / name / "f").write_text(name)
    shutil.copytree(lower, upper, symlinks=True)
    for path in (*lower.rglob("*"), *upper.rglob("*")):
        os.utime(path, ns=(0, 1_234_567_890 * 10**9))
    return lower, upper


def _change(upper: Path) -> None:
    """Change a tree in every way there is, with times that do not depend on when."""
    (upper / "a/b/f").write_text("changed, and longer")
    shutil.rmtree(upper / "a/c")
    (upper / "a/c").symlink_to("b")
    (upper / "new/deep").mkdir(parents=True)
    (upper / "new/deep/file").write_text("x")
    os.link(upper / "new/deep/file", upper / "new/deep/again")
    (upper / "z").chmod(0o700)
    os.mkfifo(upper / "z/pipe")
    for path in upper.rglob("*"):
        os.utime(path, ns=(0, 1_500_000_000 * 10**9), follow_symlinks=False)


def _without_directory_times(found: Facts) -> Facts:
    """Return facts without the times of directories, which whatever happens in them changes."""
    kept = {}
    for name, fact in found.items():
        mode = fact[0]
        assert isinstance(mode, int)
        kept[name] = (*fact[:4], 0, *fact[5:]) if stat.S_ISDIR(mode) else fact
    return kept
