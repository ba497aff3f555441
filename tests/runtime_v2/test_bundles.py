"""What bundles promise on disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from windlass import errors
from windlass_linux import calls as linux
from windlass_runtime_v2.bundle import Bootstrap, parse_bootstrap
from windlass_runtime_v2.bundles import Bundles, remapped_group, storage_error, sweep
from windlass_runtime_v2.sockets import connect_unix, listen_unix

SPEC = b'{"ociVersion": "1.2.0", "odd":  "spacing"}'
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="chown and mount need root")


@pytest.fixture
def bundles(tmp_path: Path) -> Bundles:
    return Bundles(tmp_path / "state", tmp_path / "root")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_bundle_is_private_and_holds_the_spec_verbatim(bundles: Bundles, tmp_path: Path) -> None:
    """Paths, modes and files are containerd's (docs/containerd 4.2)."""
    bundle = bundles.create("ns", "box", SPEC)

    assert bundle.path == tmp_path / "state/ns/box"
    assert (bundle.path / "config.json").read_bytes() == SPEC
    assert mode(bundle.path) == 0o700
    assert mode(bundle.rootfs) == mode(bundle.path.parent) == mode(bundle.work) == 0o711
    assert (bundle.path / "work").readlink() == bundle.work == tmp_path / "root/ns/box"


@pytest.mark.parametrize("id", ["", "..", ".hidden", "a/b", "a" * 77, "-x", "a\nb"])
def test_a_name_that_is_no_identifier_makes_no_directory(bundles: Bundles, tmp_path: Path, id: str) -> None:
    """Names come from clients and become paths."""
    with pytest.raises(errors.InvalidArgument):
        bundles.create("ns", id, SPEC)
    with pytest.raises(errors.InvalidArgument):
        bundles.create(id, "box", SPEC)
    assert not (tmp_path / "state").exists()


def test_a_directory_in_the_way_is_named(bundles: Bundles) -> None:
    """It is left alone, since it may be somebody's."""
    first = bundles.create("ns", "box", SPEC)
    with pytest.raises(errors.AlreadyExists, match=f"{first.path} is in the way"):
        bundles.create("ns", "box", b"{}")
    assert (first.path / "config.json").read_bytes() == SPEC


def test_a_bundle_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    """The work directory cannot be made, so the bundle goes too."""
    (tmp_path / "root").write_text("a file where a directory should be")
    with pytest.raises(errors.FailedPrecondition, match="cannot make the bundle of task box"):
        Bundles(tmp_path / "state", tmp_path / "root").create("ns", "box", SPEC)
    assert not list((tmp_path / "state/ns").iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            OSError(errno.ENOSPC, "x", "/some/where"),
            errors.ResourceExhausted,
            "no space left in /some/where; make room",
        ),
        (OSError(errno.ENOSPC, "x"), errors.ResourceExhausted, "no space left in {bundle}; make room"),
        (OSError(errno.EDQUOT, "x"), errors.ResourceExhausted, "no space left in {bundle} under its quota"),
        (OSError(errno.EROFS, "x"), errors.FailedPrecondition, "{bundle} is on a read-only file system; mount it"),
        (OSError(errno.EIO, "x"), errors.DataLoss, "input/output error in {bundle}; look at the disk"),
        (OSError(errno.ENOTDIR, "Not a directory", "/f"), errors.FailedPrecondition, "Not a directory: /f"),
    ],
)
def test_a_disk_that_refuses_is_an_error_with_place_and_remedy(
    tmp_path: Path, error: OSError, kind: type[errors.Error], words: str
) -> None:
    """Whether a directory finds it full, or what is written into a file."""
    found = storage_error("make it", tmp_path, error)
    assert isinstance(found, kind)
    assert str(found).startswith("cannot make it: ")
    assert words.format(bundle=tmp_path) in str(found)


def test_a_stale_work_directory_is_emptied(bundles: Bundles, tmp_path: Path) -> None:
    """An earlier task of the name may have left one."""
    (tmp_path / "root/ns/box/criu-work").mkdir(parents=True)
    (tmp_path / "root/ns/box/note").write_text("old")
    bundle = bundles.create("ns", "box", SPEC)
    assert not list(bundle.work.iterdir())


@root_only
def test_a_remapped_container_gets_a_bundle_that_its_group_may_enter(bundles: Bundles) -> None:
    """0710 and the group that the container's group 0 is mapped to."""
    spec = {"linux": {"gidMappings": [{"containerID": 0, "hostID": 4242, "size": 10}]}}
    bundle = bundles.create("ns", "box", json.dumps(spec).encode())
    assert mode(bundle.path) == 0o710
    assert bundle.path.stat().st_gid == 4242


@pytest.mark.parametrize(
    ("linux_section", "group"),
    [
        (None, None),
        ({}, None),
        ({"gidMappings": None}, None),
        ({"gidMappings": [{"containerID": 1, "hostID": 7}]}, None),
        ({"gidMappings": [{"containerID": 0, "hostID": 7}]}, 7),
        ({"gidMappings": [{"containerID": 0, "hostID": -1}]}, None),
        ({"gidMappings": [{"containerID": 0, "hostID": 1 << 40}]}, None),
        ({"gidMappings": "text"}, None),
    ],
)
def test_the_remapped_group_is_that_of_group_0(linux_section: object, group: int | None) -> None:
    """The table of docs/containerd 8.10, and what a hostile spec may say."""
    assert remapped_group(json.dumps({"linux": linux_section, "x": '"gidMappings"'}).encode()) == group
    assert remapped_group(b'"gidMappings" but no JSON') is None


def test_removal_takes_everything_and_may_be_repeated(bundles: Bundles, tmp_path: Path) -> None:
    """Bundle and work directory go, and what has gone is no error."""
    bundle = bundles.create("ns", "box", SPEC)
    (bundle.work / "criu-work").mkdir()
    (bundle.path / "sub").mkdir()
    (bundle.path / "sub/file").write_text("")

    bundles.remove(bundle)
    bundles.remove(bundle)

    assert not list((tmp_path / "state/ns").iterdir())
    assert not list((tmp_path / "root/ns").iterdir())


def test_files_left_in_the_rootfs_are_kept_and_the_name_is_free(bundles: Bundles) -> None:
    """Nothing below a rootfs is ever deleted recursively."""
    bundle = bundles.create("ns", "box", SPEC)
    (bundle.rootfs / "data").write_text("precious")

    with pytest.raises(errors.FailedPrecondition, match="is not empty after unmounting"):
        bundles.remove(bundle)

    assert (bundle.path.parent / ".box/rootfs/data").read_text() == "precious"
    assert bundles.create("ns", "box", SPEC).path.exists()
    with pytest.raises(errors.FailedPrecondition):
        (bundles.bundle("ns", "box").rootfs / "more").write_text("")
        bundles.remove(bundles.bundle("ns", "box"))
    assert (bundle.path.parent / ".box.1/rootfs/more").exists()


@root_only
def test_stacked_mounts_on_the_rootfs_are_detached(bundles: Bundles, tmp_path: Path) -> None:
    """Removal unmounts before it deletes, and does not touch what was mounted."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image/file").write_text("kept")
    bundle = bundles.create("ns", "box", SPEC)
    for _ in range(2):
        linux.mount(tmp_path / "image", bundle.rootfs, "", linux.MS_BIND)

    bundles.remove(bundle)

    assert not bundle.path.exists()
    assert (tmp_path / "image/file").read_text() == "kept"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@root_only
def test_nothing_is_mounted_in_a_bundle_whose_name_is_free(bundles: Bundles, tmp_path: Path) -> None:
    """Its files may go later, but whoever removes its snapshot next must not find it in use."""
    (tmp_path / "image").mkdir()
    bundle = bundles.create("ns", "box", SPEC)
    linux.mount(tmp_path / "image", bundle.rootfs, "", linux.MS_BIND)

    hidden = bundles.hide(bundle)

    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    sweep(hidden)
    assert not list((tmp_path / "state/ns").iterdir()) and not list((tmp_path / "root/ns").iterdir())


def test_a_rootfs_that_is_a_link_is_not_followed(bundles: Bundles, tmp_path: Path) -> None:
    """Whoever can write into a bundle cannot have other directories emptied."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_text("kept")
    bundle = bundles.create("ns", "box", SPEC)
    bundle.rootfs.rmdir()
    bundle.rootfs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.FailedPrecondition):
        bundles.remove(bundle)
    assert (tmp_path / "elsewhere/file").read_text() == "kept"


def test_sweep_deletes_interrupted_removals_and_stray_work(bundles: Bundles, tmp_path: Path) -> None:
    """What a killed daemon has left half-deleted goes at the next start; bundles stay."""
    kept, gone = bundles.create("ns", "kept", SPEC), bundles.create("ns", "gone", SPEC)
    gone.path.rename(gone.path.with_name(".gone"))

    sweep(bundles.leftovers())

    assert [path.name for path in (tmp_path / "state/ns").iterdir()] == ["kept"]
    assert [path.name for path in (tmp_path / "root/ns").iterdir()] == ["kept"]
    assert [bundle.id for bundle in bundles.walk()] == [kept.id]


def test_bootstrap_survives_a_round_trip(bundles: Bundles) -> None:
    """bootstrap.json is 0644 and says all that a later daemon needs."""
    bundle = bundles.create("ns", "box", SPEC)
    bundle.write_bootstrap(Bootstrap("unix:///s", 2, "grpc", "io.containerd.runc.v2"))
    assert bundle.read_bootstrap() == Bootstrap("unix:///s", 2, "grpc", "io.containerd.runc.v2")
    assert mode(bundle.path / "bootstrap.json") == 0o644


def test_the_address_file_of_old_shims_is_taken_over(bundles: Bundles) -> None:
    """It means version 2 by ttrpc, and becomes a bootstrap.json."""
    bundle = bundles.create("ns", "box", SPEC)
    (bundle.path / "address").write_text("unix:///run/s\n")
    assert bundle.read_bootstrap() == Bootstrap("unix:///run/s", 2, "ttrpc")
    assert parse_bootstrap((bundle.path / "bootstrap.json").read_bytes()).version == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"address": "", "version": 3}', b'{"address": 5, "version": 3}', b"\xff", b"9" * 70000],
)
def test_a_broken_bootstrap_is_refused(bundles: Bundles, data: bytes) -> None:
    """A file that was cut off by a crash is an error with its path."""
    bundle = bundles.create("ns", "box", SPEC)
    (bundle.path / "bootstrap.json").write_bytes(data)
    with pytest.raises(errors.FailedPrecondition, match="box"):
        bundle.read_bootstrap()


def test_sockets_work_below_long_paths_and_are_private(tmp_path: Path) -> None:
    """unix(7) allows 107 bytes, directories may be deeper."""
    import socket

    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    path = directory / ("s" * 64)
    with listen_unix(path) as listener, socket.socket(socket.AF_UNIX) as peer:
        connect_unix(peer, str(path))
        assert mode(path) == 0o600
        listener.accept()[0].close()
