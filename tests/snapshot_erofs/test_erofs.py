"""What is special about snapshots as images: how they are shown, made and removed, and layers that are images."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from snapshot_erofs.conftest import needs_erofs

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LAYER_GZIP, CompareOptions
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_GID_MAPPING, LABEL_UID_MAPPING, Kind, Usage
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unimplemented
from windlass.plugin import SkipPlugin
from windlass_linux import mounting
from windlass_snapshot_erofs import images as images_module
from windlass_snapshot_erofs import layers
from windlass_snapshot_erofs.differ import ErofsDiffer
from windlass_snapshot_erofs.handler import ErofsHandler
from windlass_snapshot_erofs.images import Images, problem_of, set_immutable
from windlass_snapshot_erofs.layers import Features
from windlass_snapshot_erofs.probe import probe
from windlass_snapshot_erofs.snapshotter import ErofsSnapshotter
from windlass_storage.metastore import Record

IMAGE_TYPE = "application/vnd.erofs"
MAPPED = {LABEL_UID_MAPPING: "0:1000:65536", LABEL_GID_MAPPING: "0:1000:65536"}


@pytest.fixture
def snapshotter(tmp_path: Path) -> Iterator[ErofsSnapshotter]:
    snapshotter = ErofsSnapshotter(tmp_path / "root", Images(), Features(index=True))
    yield snapshotter
    snapshotter.close()
    mounting.unmount_all(tmp_path)


def upper(mounts: tuple[Mount, ...]) -> Path:
    directory = layers.directory_of(mounts)
    assert directory is not None
    return directory / "fs"


def erofs(number: int) -> Mount:
    return Mount("erofs", f"/s/{number}/layer.erofs", ("ro", "loop"))


def overlay(*options: str) -> Mount:
    return Mount("format/overlay", "overlay", options)


OWN = ("workdir=/s/9/work", "upperdir=/s/9/fs")
BELOW = "lowerdir={{ overlay 0 1 }}"
MAPPING = ("uidmap=0:1000:65536", "gidmap=0:1000:65536")


@pytest.mark.parametrize(
    ("kind", "parents", "labels", "expected"),
    [
        (Kind.ACTIVE, (), {}, [Mount("bind", "/s/9/fs", ("rw", "rbind"))]),
        (Kind.VIEW, (), {}, [Mount("bind", "/s/9/fs", ("ro", "rbind"))]),
        (Kind.VIEW, (3,), {}, [erofs(3)]),
        (Kind.VIEW, (4, 3), {}, [erofs(4), erofs(3), overlay(BELOW, "volatile", "index=off")]),
        (Kind.ACTIVE, (4, 3), {}, [erofs(4), erofs(3), overlay(*OWN, BELOW, "volatile", "index=off")]),
        (
            Kind.VIEW,
            (3,),
            MAPPED,
            [erofs(3), overlay(*MAPPING, "lowerdir={{ overlay 0 0 }}:/s/9/fs", "volatile", "index=off")],
        ),
    ],
)
def test_how_a_snapshot_is_shown(
    kind: Kind, parents: tuple[int, ...], labels: dict[str, str], expected: list[Mount]
) -> None:
    """Nearest parent first, and the overlay last, with the places of all that come before it."""
    record = Record(9, kind, parents, labels, Usage(0, 0))
    features = Features(remap_ids=True, index=True)
    assert list(layers.mounts(record, lambda id: Path(f"/s/{id}"), features, ["volatile"])) == expected


@pytest.mark.parametrize(
    ("mounts", "directory"),
    [
        ((Mount("bind", "/s/9/fs", ("rw", "rbind")),), "/s/9"),
        ((Mount("bind", "/s/9/fs", ("ro", "rbind")),), None),
        ((Mount("bind", "/s/9/else", ("rbind",)),), None),
        ((Mount("bind", "fs", ("rbind",)),), None),
        ((erofs(1), overlay(*OWN, BELOW)), "/s/9"),
        ((erofs(1), overlay(BELOW)), None),
        ((erofs(1),), None),
        ((), None),
    ],
)
def test_a_snapshot_is_known_by_its_mounts(mounts: tuple[Mount, ...], directory: str | None) -> None:
    """Only an active one's tell where it is."""
    assert layers.directory_of(mounts) == (Path(directory) if directory else None)


@needs_erofs
class TestImages:
    def test_a_committed_snapshot_is_one_file(self, snapshotter: ErofsSnapshotter, tmp_path: Path) -> None:
        """What it was made of is deleted, but for the owner of its root, which the next one has too."""
        place = upper(snapshotter.prepare("key"))
        (place / "file").write_text("content")
        os.chown(place, 5, 6)
        snapshotter.commit("name", "key")
        directory = place.parent
        assert {each.name for each in directory.iterdir()} == {"fs", "layer.erofs", ".erofslayer", ".converted"}
        assert not list(place.iterdir())
        with mounting.mounted(snapshotter.view("view", "name"), tmp_path) as root:
            assert Path(root, "file").read_text() == "content"
        status = upper(snapshotter.prepare("next", "name")).stat()
        assert (status.st_uid, status.st_gid) == (5, 6)

    def test_a_commit_that_failed_can_be_repeated(
        self, snapshotter: ErofsSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The snapshot stays active and whole, and the image is of what it holds by then."""
        snapshotter.prepare("other")
        snapshotter.commit("taken", "other")
        place = upper(snapshotter.prepare("key"))
        (place / "file").write_text("first")
        with pytest.raises(AlreadyExists):
            snapshotter.commit("taken", "key")
        (place / "file").write_text("second")
        program = tmp_path / "bin/mkfs.erofs"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho it is broken >&2; exit 1\n")
        program.chmod(0o755)
        with monkeypatch.context() as patch, pytest.raises(FailedPrecondition, match="it is broken"):
            patch.setenv("PATH", f"{program.parent}:/bin")
            snapshotter.commit("name", "key")
        assert snapshotter.stat("key").kind == Kind.ACTIVE
        assert not [each for each in place.parent.iterdir() if each.name.startswith(".layer")]
        snapshotter.commit("name", "key")
        with mounting.mounted(snapshotter.view("view", "name"), tmp_path) as root:
            assert Path(root, "file").read_text() == "second"

    def test_cleanup_finishes_what_a_crash_has_left(self, snapshotter: ErofsSnapshotter) -> None:
        """Directories of removed snapshots, and what committed ones were made of."""
        place = upper(snapshotter.prepare("key"))
        snapshotter.commit("name", "key")
        (place / "left").touch()
        (place.parent / "work/work").mkdir(parents=True)
        (place.parent / ".layer.erofs-12").touch()
        gone = upper(snapshotter.prepare("gone")).parent
        snapshotter.remove("gone")
        snapshotter.cleanup()
        assert not gone.exists()
        assert not list(place.iterdir())
        assert not (place.parent / "work").exists()
        assert not (place.parent / ".layer.erofs-12").exists()

    def test_an_immutable_image_goes_with_its_snapshot(self, tmp_path: Path) -> None:
        """Nobody changes it by mistake, and it is not in the way."""
        probe_file = tmp_path / "probe"
        probe_file.touch()
        try:
            set_immutable(probe_file, True)
        except OSError as error:
            pytest.skip(f"{tmp_path} has no immutable files: {error.strerror}")
        set_immutable(probe_file, False)
        images = Images(immutable=True)
        snapshotter = ErofsSnapshotter(tmp_path / "root", images, probe(tmp_path / "root", images, tmp_path))
        image = upper(snapshotter.prepare("key")).parent / "layer.erofs"
        snapshotter.commit("name", "key")
        for change in (image.unlink, lambda: image.open("r+b")):
            with pytest.raises(PermissionError):
                change()
        snapshotter.remove("name")
        set_immutable(image, True)  # as a crash would leave it
        snapshotter.cleanup()
        assert not image.exists()
        snapshotter.close()

    @pytest.mark.parametrize("needs_device", [False, True])
    def test_an_image_is_mounted_with_and_without_a_device(
        self, snapshotter: ErofsSnapshotter, tmp_path: Path, needs_device: bool
    ) -> None:
        """Where Linux wants a block device there is one as long as the mount."""
        (upper(snapshotter.prepare("key")) / "file").write_text("content")
        snapshotter.commit("name", "key")
        handler, place = ErofsHandler(), tmp_path / "place"
        handler._needs_device = needs_device
        handler.mount(snapshotter.view("view", "name")[0], str(place), ())
        assert (place / "file").read_text() == "content"
        assert handler.is_mounted(str(place))
        handler.unmount(str(place))
        assert not place.exists()
        with pytest.raises(OSError, match="cannot mount erofs"):
            handler.mount(Mount("erofs", str(tmp_path / "none"), ("ro", "loop")), str(place), ())
        assert not place.exists()

    def test_owners_are_mapped(self, snapshotter: ErofsSnapshotter, tmp_path: Path) -> None:
        """Where overlay can, files of images show the owners that the labels ask for, and so do new ones."""
        if not probe(tmp_path / "probe", Images(), tmp_path).remap_ids:
            pytest.skip("this Linux has no ID-mapped overlay on images")
        snapshotter._features = Features(remap_ids=True, index=True)
        (upper(snapshotter.prepare("key")) / "file").touch()
        snapshotter.commit("name", "key")
        image, overlay = snapshotter.prepare("mapped", "name", MAPPED)
        ErofsHandler().mount(image, str(tmp_path / "image"), ())
        options = tuple(option.replace("{{ overlay 0 0 }}", str(tmp_path / "image")) for option in overlay.options)
        with mounting.mounted([Mount("overlay", "overlay", options)], tmp_path) as root:
            assert [Path(root, name).stat().st_uid for name in (".", "file")] == [1000, 1000]
        ErofsHandler().unmount(str(tmp_path / "image"))

    def test_a_layer_gets_its_parent_when_it_is_committed(self, snapshotter: ErofsSnapshotter, tmp_path: Path) -> None:
        """What it deletes is deleted, though nothing was there to delete when its image was made."""
        below, above = (upper(snapshotter.prepare(name)) for name in ("below", "above"))
        (below / "old").mkdir()
        for name in ("gone", "stays", "old/file"):
            (below / name).touch()
        os.mknod(above / "gone", stat.S_IFCHR, 0)
        (above / "old").mkdir()
        os.setxattr(above / "old", "trusted.overlay.opaque", b"y")
        (above / "old/new").touch()
        snapshotter.commit("base", "below")
        snapshotter.commit("top", "above", parent="base")
        assert snapshotter.stat("top").parent == "base"

        *images, overlay = snapshotter.view("view", "top")
        places = [str(tmp_path / f"image{number}") for number in range(len(images))]
        for image, place in zip(images, places, strict=True):
            ErofsHandler().mount(image, place, ())
        options = tuple(option.replace("{{ overlay 0 1 }}", ":".join(places)) for option in overlay.options)
        with mounting.mounted([Mount("overlay", "overlay", options)], tmp_path) as root:
            found = sorted(str(path.relative_to(root)) for path in Path(root).rglob("*"))
        for place in places:
            ErofsHandler().unmount(place)
        assert found == ["old", "old/new", "stays"]
        with pytest.raises(FailedPrecondition):
            snapshotter.remove("base")

    def test_a_machine_that_cannot_is_told_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A skip has its reason and its remedy."""
        with pytest.raises(SkipPlugin, match="rename it: skip plugin"):
            probe(tmp_path / "a:b", Images(), tmp_path)
        with pytest.raises(SkipPlugin, match=r"no image can be made .* try another root_path"):
            probe(tmp_path, Images(["--nonsense"]), tmp_path)
        monkeypatch.setattr(images_module, "SEARCHED", "")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SkipPlugin, match="install erofs-utils"):
            probe(tmp_path, Images(), tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["probe"]


class Blob:
    """One blob, as a reader and as all of a content store."""

    def __init__(self, data: bytes, media_type: str = IMAGE_TYPE) -> None:
        self.data = data
        self.desc = Descriptor(media_type, f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))

    def reader(self, desc: Descriptor) -> Blob:
        assert desc == self.desc
        return self

    def read_at(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def close(self) -> None:
        pass


def apply(blob: Blob, mounts: tuple[Mount, ...]) -> Descriptor:
    content: ContentStore = blob  # type: ignore[assignment]  # as much of one as is used
    return ErofsDiffer().apply(content, blob.desc, mounts)


@needs_erofs
class TestLayersThatAreImages:
    @pytest.fixture
    def image(self, tmp_path: Path) -> bytes:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/file").write_text("of the layer")
        (tmp_path / "tree/large").write_bytes(os.urandom(20_000))
        Images().make(tmp_path / "tree", tmp_path / "image")
        return (tmp_path / "image").read_bytes()

    @pytest.mark.parametrize("compressed", [False, True])
    def test_they_are_used_as_they_are(
        self, snapshotter: ErofsSnapshotter, image: bytes, tmp_path: Path, compressed: bool
    ) -> None:
        """Byte for byte, and told by their own digest."""
        snapshotter.prepare("base key")
        snapshotter.commit("base", "base key")
        blob = Blob(zstandard.compress(image), f"{IMAGE_TYPE}+zstd") if compressed else Blob(image)
        mounts = snapshotter.prepare("key", "base")
        assert apply(blob, mounts) == Descriptor(IMAGE_TYPE, f"sha256:{hashlib.sha256(image).hexdigest()}", len(image))
        assert snapshotter.usage("key").inodes == 1
        snapshotter.commit("name", "key")
        assert (upper(mounts).parent / "layer.erofs").read_bytes() == image
        single = snapshotter.view("view", "name")[0]
        with mounting.mounted([single], tmp_path) as root:
            assert Path(root, "file").read_text() == "of the layer"

    def test_what_is_no_image_is_refused(self, snapshotter: ErofsSnapshotter, image: bytes) -> None:
        """Cut off, compressed but damaged, or something else: nothing is left of it."""
        mounts = snapshotter.prepare("key")
        packed = zstandard.compress(image)
        for blob, words in (
            (Blob(b"x" * 5000), "no superblock"),
            (Blob(b""), "too short"),
            (Blob(image[:-4096]), "cut off"),
            (Blob(packed[: len(packed) // 2], f"{IMAGE_TYPE}+zstd"), "not an EROFS image"),
            (Blob(b"no zstd", f"{IMAGE_TYPE}+zstd"), "damaged"),
        ):
            with pytest.raises(InvalidArgument, match=words):
                apply(blob, mounts)
        assert {each.name for each in upper(mounts).parent.iterdir()} == {"fs", "work", ".erofslayer"}
        assert problem_of(Path("/dev/null")) == "it is too short"

    def test_everything_else_is_another_differ_s(
        self, snapshotter: ErofsSnapshotter, image: bytes, tmp_path: Path
    ) -> None:
        """Other layers, other compressions, other snapshotters' mounts, and comparing."""
        mounts = snapshotter.prepare("key")
        for kind in (LAYER_GZIP, f"{IMAGE_TYPE}+gzip"):
            with pytest.raises(Unimplemented, match="is not an EROFS image"):
                apply(Blob(image, kind), mounts)
        (tmp_path / "fs").mkdir()
        with pytest.raises(Unimplemented, match="only snapshots of erofs"):
            apply(Blob(image), (Mount("bind", str(tmp_path / "fs"), ("rw", "rbind")),))
        assert not (tmp_path / "layer.erofs").exists()
        with pytest.raises(Unimplemented, match="makes no layers"):
            ErofsDiffer().compare(Blob(b""), mounts, mounts, CompareOptions())  # type: ignore[arg-type]  # not used
        assert apply(Blob(image, "application/vnd.x.layer.erofs"), mounts).media_type == "application/vnd.x.layer.erofs"
