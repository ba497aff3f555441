"""Hostile layers through the daemon: refused with a message or kept inside the root, and nothing stays behind."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compat import bad_images
from compat.bad_images import archive, digest, entry, layer
from compat.scratch_daemon import METADATA, ScratchDaemon, needs_ctr, needs_root, wait_until

from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.diff.v1 import diff_pb2, diff_pb2_grpc
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from windlass_api.containerd.types import descriptor_pb2, mount_pb2

pytestmark = [needs_root, needs_ctr]

ESCAPED = f"windlass-escaped-{os.getpid()}"
UP = "../" * 30
LONG = 4 << 30


def gnu_long_name(size: int) -> bytes:
    """Return a GNU long-name header that announces ``size`` bytes of name."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax_header(size: int) -> bytes:
    """Return a pax header that announces ``size`` bytes of records."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, size
    return info.tobuf(tarfile.GNU_FORMAT)


DIR, SYM, LINK, CHR = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
KEPT = {
    "dotdot": [entry(f"{UP}tmp/{ESCAPED}", data=b"x")],
    "absolute": [entry(f"/tmp/{ESCAPED}", data=b"x")],
    "symlink": [entry("out", SYM, f"{UP}tmp"), entry(f"out/{ESCAPED}", data=b"x")],
    "absolute symlink": [entry("out", SYM, "/tmp"), entry(f"out/{ESCAPED}", data=b"x")],
    "symlink chain": [entry("a", SYM, "/"), entry("b", SYM, f"a/{UP}"), entry(f"b/tmp/{ESCAPED}", data=b"x")],
    "symlink replaced": [entry("d", DIR), entry("d", SYM, "/tmp"), entry(f"d/{ESCAPED}", data=b"x")],
    "device": [entry("dev", DIR), entry("dev/null", CHR, devmajor=1, devminor=3)],
    "whiteout through a link": [entry("out", SYM, "/tmp"), entry(f"out/.wh.{ESCAPED}.victim")],
    "opaque through a link": [entry("out", SYM, f"{UP}tmp"), entry("out/.wh..wh..opq")],
}
REFUSED = {
    "hard link outward": ([entry("x", LINK, f"{UP}etc/passwd")], "hard link to"),
    "absolute hard link outward": ([entry("x", LINK, "/etc/passwd")], "hard link to"),
    "hard link through a link": ([entry("o", SYM, "/etc"), entry("x", LINK, "o/passwd")], "hard link to"),
    "whiteout of ..": ([entry("d", DIR), entry("d/.wh...")], "whiteout"),
    "whiteout of nothing": ([entry("d", DIR), entry("d/.wh.")], "whiteout"),
    "name of 4 GB": ([gnu_long_name(LONG)], "name"),
    "pax header of 4 GB": ([pax_header(LONG)], "header"),
    "name of 5000 bytes": ([entry("n/" * 2500 + "x", data=b"x")], "name"),
    "file cut short": ([entry("f", data=b"x" * 4096)[:1024]], ""),
    "header of garbage": ([b"\xff" * 512], ""),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScratchDaemon]:
    """One daemon for all: it has to stand them one after the other."""
    daemon = ScratchDaemon(tmp_path_factory.mktemp("d"))
    daemon.start()
    yield daemon
    daemon.close()


@pytest.fixture
def clean(daemon: ScratchDaemon) -> Iterator[ScratchDaemon]:
    """The daemon; afterwards nothing is left in it and nothing has escaped."""
    victim = Path(f"/tmp/{ESCAPED}.victim")
    victim.write_text("x")
    try:
        yield daemon
        assert victim.exists()
        assert not Path(f"/tmp/{ESCAPED}").exists()
        # not by rglob(): the daemon removes snapshots meanwhile
        escaped = [top for top, below, names in os.walk(daemon.scratch) if ESCAPED in (*below, *names)]
        escaped = [top for top in escaped if "snapshots" not in Path(top).parts]
        assert not escaped
        for image in daemon.ctr("images", "ls", "-q").stdout.split():
            assert daemon.ctr("images", "rm", "--sync", image).returncode == 0
        assert wait_until(lambda: not kept(daemon)), kept(daemon)
    finally:
        victim.unlink()


def kept(daemon: ScratchDaemon) -> list[str]:
    """Return what of images, leases and ingests there is, on disk and in the daemon's answers."""
    found = daemon.leftovers()
    for snapshotter in ("overlayfs", "native"):
        rows = daemon.ctr("snapshots", "--snapshotter", snapshotter, "ls").stdout.splitlines()[1:]
        found += rows
        found += map(str, daemon.root.glob(f"io.containerd.snapshotter.v1.{snapshotter}/snapshots/*"))
    found += daemon.ctr("leases", "ls", "-q").stdout.split()
    found += daemon.ctr("content", "ls", "-q").stdout.split()
    return found + [str(path) for path in daemon.root.glob("io.containerd.content.v1.content/blobs/*/*")]


def load(daemon: ScratchDaemon, snapshotter: str, data: bytes) -> tuple[int, str]:
    """Import an archive with ctr."""
    file = daemon.scratch / "image.tar"
    file.write_bytes(data)
    done = daemon.ctr("images", "import", "--snapshotter", snapshotter, str(file))
    return done.returncode, done.stderr


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("name", KEPT)
def test_what_points_outside_stays_inside(clean: ScratchDaemon, snapshotter: str, name: str) -> None:
    """As containerd: the name is taken below the root (docs/containerd 3.16)."""
    code, err = load(clean, snapshotter, archive("docker.io/test/kept:1", [layer(*KEPT[name])]))
    assert code == 0, err


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_a_layer_cannot_escape_by_a_link_of_the_one_below(clean: ScratchDaemon, snapshotter: str) -> None:
    """The link was good when it was made."""
    lower = layer(entry("out", SYM, "/tmp"), entry("up", SYM, f"{UP}tmp"))
    upper = layer(entry(f"out/{ESCAPED}", data=b"x"), entry(f"up/{ESCAPED}", data=b"x"), entry("up/.wh..wh..opq"))
    code, err = load(clean, snapshotter, archive("docker.io/test/two:1", [lower, upper]))
    assert code == 0, err


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(clean: ScratchDaemon, snapshotter: str, name: str) -> None:
    """The message says what is wrong with which blob."""
    entries, message = REFUSED[name]
    blob = layer(*entries)
    code, err = load(clean, snapshotter, archive("docker.io/test/refused:1", [blob]))
    assert code == 1
    assert message in err
    assert digest(blob)[:19] in err, err


def test_a_gzip_that_is_cut_short_is_refused(clean: ScratchDaemon) -> None:
    """Also when all of the tar's entries were there."""
    plain = layer(entry("f", data=os.urandom(100_000)))
    blob = gzip.compress(plain)
    for cut in (blob[:50_000], blob[:-4], blob[:-8], blob[:5]):
        code, err = load(
            clean, "overlayfs", archive("docker.io/test/cut:1", [cut], bad_images.LAYER + "+gzip", [digest(plain)])
        )
        assert code == 1, len(cut)
        assert digest(cut)[:19] in err, err


def test_a_layer_that_is_not_what_the_config_says_is_refused(clean: ScratchDaemon) -> None:
    """ctr compares what Apply answers with the diff ID."""
    blob = layer(entry("f", data=b"x"))
    code, err = load(clean, "overlayfs", archive("docker.io/test/id:1", [blob], diff_ids=[digest(b"other")]))
    assert code == 1
    assert "wrong diff id" in err


def test_an_index_that_names_a_missing_blob_is_refused(clean: ScratchDaemon) -> None:
    """What was sent before stays for the collector only."""
    blob = layer(entry("f", data=b"x"))
    data = archive("docker.io/test/gone:1", [blob]).replace(digest(blob)[7:].encode(), b"0" * 64)
    code, err = load(clean, "overlayfs", data)
    assert code == 1
    assert err.strip()


@pytest.mark.parametrize(
    ("total", "expected", "message"),
    [
        (10, digest(b"hello"), "has 5 bytes, not 10"),
        (4, "", "has 5 bytes, not 4"),
        (5, digest(b"other"), "digest"),
    ],
)
def test_content_that_is_not_what_was_announced_is_refused(
    clean: ScratchDaemon, total: int, expected: str, message: str
) -> None:
    """By size or by digest; neither a blob nor an ingest is kept."""
    with clean.channel() as channel:
        stub = content_pb2_grpc.ContentStub(channel)
        request = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT, ref="r", total=total, expected=expected, data=b"hello"
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Write(iter([request]), metadata=METADATA))
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert message in (caught.value.details() or "")
        assert not stub.ListStatuses(content_pb2.ListStatusesRequest(), metadata=METADATA).statuses


def apply(channel: grpc.Channel, blob: str, size: int, mounts: list[mount_pb2.Mount], media: str) -> grpc.RpcError:
    """Ask for a layer to be applied and return why it was not."""
    desc = descriptor_pb2.Descriptor(media_type=media, digest=blob, size=size)
    with pytest.raises(grpc.RpcError) as caught:
        diff_pb2_grpc.DiffStub(channel).Apply(diff_pb2.ApplyRequest(diff=desc, mounts=mounts), metadata=METADATA)
    return caught.value


def test_apply_refuses_descriptors_and_mounts_that_cannot_be(clean: ScratchDaemon) -> None:
    """Each with its own status, and the snapshot can be removed afterwards."""
    blob = layer(entry("f", data=b"x"))
    code = grpc.StatusCode
    labels = {"containerd.io/gc.root": "kept"}  # else a collection that earlier tests caused may take them
    with clean.channel() as channel:
        content = content_pb2_grpc.ContentStub(channel)
        request = content_pb2.WriteContentRequest(
            action=content_pb2.COMMIT, ref="b", total=len(blob), expected=digest(blob), data=blob, labels=labels
        )
        list(content.Write(iter([request]), metadata=METADATA))
        snapshots = snapshots_pb2_grpc.SnapshotsStub(channel)
        prepare = snapshots_pb2.PrepareSnapshotRequest(snapshotter="overlayfs", key="k", labels=labels)
        good = list(snapshots.Prepare(prepare, metadata=METADATA).mounts)
        for blob_digest, size, mounts, media, expected in [
            (digest(b"no such"), 10, good, bad_images.LAYER, code.NOT_FOUND),
            ("sha256:zz", 10, good, bad_images.LAYER, code.INVALID_ARGUMENT),
            ("../../etc/passwd", 10, good, bad_images.LAYER, code.INVALID_ARGUMENT),
            (digest(blob), len(blob), good, "text/plain", code.UNIMPLEMENTED),
            (digest(blob), len(blob), [mount_pb2.Mount(type="nosuchfs", source="x")], bad_images.LAYER, None),
            (digest(blob), len(blob), [mount_pb2.Mount(type="bind", source="/no/such")], bad_images.LAYER, None),
            (
                digest(blob),
                len(blob),
                [mount_pb2.Mount(type="overlay", options=["upperdir=/x"])],
                bad_images.LAYER,
                None,
            ),
        ]:
            error = apply(channel, blob_digest, size, mounts, media)
            assert expected in (error.code(), None), (blob_digest, error)
            assert error.code() != code.UNKNOWN, error
            assert error.details()
        snapshots.Remove(snapshots_pb2.RemoveSnapshotRequest(snapshotter="overlayfs", key="k"), metadata=METADATA)
    assert clean.ctr("content", "rm", digest(blob)).returncode == 0
