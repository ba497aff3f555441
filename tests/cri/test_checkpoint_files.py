"""Archives of checkpoints: what is in them is not trusted, whoever wrote them (CVE-2026-53492, -50195, -53489)."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.checkpoints import criu
from windlass_cri.checkpoints import files as files
from windlass_cri.checkpoints.restores import matched, names_of

KEY = b"k" * 32


def archive(path: Path, *members: tuple[str, bytes | tarfile.TarInfo]) -> str:
    with tarfile.open(path, "w") as out:
        for name, content in members:
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            data = content if isinstance(content, bytes) else b""
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return str(path)


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, target
    return entry


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "inside"
    made.mkdir()
    return made


def test_what_is_packed_is_unpacked(tmp_path: Path, directory: Path) -> None:
    (directory / "checkpoint").mkdir()
    (directory / "checkpoint/pages-1.img").write_bytes(b"memory")
    location, copy = tmp_path / "made.tar", tmp_path / "copy"
    copy.mkdir()
    files.pack(directory, location)
    assert location.stat().st_mode & 0o777 == 0o600
    files.unpack(str(location), copy)
    assert (copy / "checkpoint/pages-1.img").read_bytes() == b"memory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "inside", "made.tar"]


def test_an_archive_replaces_an_older_one_and_is_as_private(tmp_path: Path, directory: Path) -> None:
    location = tmp_path / "made.tar"
    location.write_bytes(b"x" * 100_000)
    location.chmod(0o644)
    files.pack(directory, location)
    assert location.stat().st_size < 100_000
    assert location.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name", ["../out", "/etc/out", "a/../../out", "a//b", ".hidden", "a\\b", "a/./b", "a\nb", "x" * 201, "a b"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, directory: Path, name: str) -> None:
    location = archive(tmp_path / "bad.tar", (name, b"data"))
    with pytest.raises(InvalidArgument, match="which no checkpoint has"):
        files.unpack(location, directory)
    assert not list(directory.rglob("*"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "status"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, directory: Path, kind: bytes, target: str) -> None:
    location = archive(tmp_path / "bad.tar", ("status", special(kind, target)))
    with pytest.raises(InvalidArgument, match="neither a plain file nor a directory"):
        files.unpack(location, directory)
    assert not list(directory.iterdir())


def test_a_name_that_comes_twice_and_what_is_no_archive_are_refused(tmp_path: Path, directory: Path) -> None:
    twice = archive(tmp_path / "twice.tar", ("status", b"1"), ("status", b"2"))
    with pytest.raises(InvalidArgument, match="damaged"):
        files.unpack(twice, directory)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(InvalidArgument, match="damaged"):
        files.unpack(str(tmp_path / "text"), directory)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to("/etc/passwd"),
        os.mkfifo,
        Path.mkdir,
    ],
)
def test_a_path_that_is_not_a_plain_file_is_not_read(
    tmp_path: Path, directory: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "path")
    with pytest.raises(InvalidArgument):
        files.unpack(str(tmp_path / "path"), directory)


@pytest.mark.parametrize("path", ["", "relative", "/absent/file", "/a\0b"])
def test_a_path_that_leads_nowhere(directory: Path, path: str) -> None:
    with pytest.raises(InvalidArgument):
        files.unpack(path, directory)


def test_the_seal_is_of_every_file_and_its_name(tmp_path: Path, directory: Path) -> None:
    for name in ("pod.dump", "pages"):
        (directory / name).write_text(name)
    files.seal(directory, KEY)
    files.check_seal(directory, KEY)
    with pytest.raises(InvalidArgument, match="seal"):
        files.check_seal(directory, b"o" * 32)
    changes: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: (directory / "more").write_text(""), (directory / "more").unlink),
        (
            lambda: (directory / "pages").rename(directory / "other"),
            lambda: (directory / "other").rename(directory / "pages"),
        ),
        (lambda: (directory / "pages").write_text("x"), lambda: (directory / "pages").write_text("pages")),
    ]
    for change, undo in changes:
        change()
        with pytest.raises(InvalidArgument, match="seal"):
            files.check_seal(directory, KEY)
        undo()
    files.check_seal(directory, KEY)
    (directory / "seal").unlink()
    with pytest.raises(InvalidArgument, match="seal"):
        files.check_seal(directory, KEY)


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    made = files.key(tmp_path / "key")
    assert files.key(tmp_path / "key") == made
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(Unknown, match="is not the key"):
        files.key(tmp_path / "key")


def test_a_status_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "status").symlink_to(secret)
    os.mkfifo(tmp_path / "fifo")
    for name in ("status", "fifo"):
        with pytest.raises(Unknown, match="not a regular file"):
            files.copy_plain(tmp_path / name, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    files.copy_plain(secret, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("location", ["", "relative", "/absent/x.tar", "/tmp/", "/tmp", "/a\0b"])
def test_places_that_no_archive_can_have(location: str) -> None:
    with pytest.raises(InvalidArgument, match="location"):
        files.check_place(location)


def test_a_place_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidArgument, match="not a regular file"):
        files.check_place(str(tmp_path / "link"))


def dumped(directory: Path, document: object) -> Path:
    (directory / "pod.dump").write_text(json.dumps(document))
    for part in ("0/checkpoint", "1/checkpoint"):
        (directory / "containers" / part).mkdir(parents=True)
        (directory / "containers" / part).with_name("rootfs-diff.tar").touch()
    return directory


def test_names_of_containers(directory: Path) -> None:
    assert names_of(dumped(directory, {"version": 1, "containers": ["a", "b"]})) == ["a", "b"]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"version": 2, "containers": []},
        {"version": 1, "containers": "ab"},
        {"version": 1, "containers": [1]},
        {"version": 1, "containers": ["a", "b", "c"]},
        {"version": 1, "containers": ["x"] * 1001},
    ],
)
def test_a_pods_document_that_is_damaged(directory: Path, document: object) -> None:
    with pytest.raises(InvalidArgument, match="the checkpoint is"):
        names_of(dumped(directory, document))


def test_each_container_needs_a_configuration_of_the_client() -> None:
    configs = [cri.ContainerConfig(metadata=cri.ContainerMetadata(name=name)) for name in ("a", "b")]
    assert [each.metadata.name for each in matched(["b", "a"], configs)] == ["b", "a"]
    for names in ([], ["a"], ["a", "b", "c"], ["a", "a"]):
        with pytest.raises(InvalidArgument, match="container_configs"):
            matched(names, configs)
    with pytest.raises(InvalidArgument, match="container_configs"):
        matched(["a"], [configs[0], configs[0]])


def fake_criu(monkeypatch: pytest.MonkeyPatch, directory: Path, says: str) -> None:
    program = directory / "criu"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_a_criu_that_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_criu(monkeypatch, tmp_path, "Version: 4.2.1")
    criu.check(True)
    with pytest.raises(Unknown, match="disabled by configuration"):
        criu.check(False)


@pytest.mark.parametrize(
    ("says", "reason"), [("Version: 3.15", "at least 3.16"), ("Version: 2.12", "at least"), ("?", "failed to retrieve")]
)
def test_a_criu_that_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, reason: str) -> None:
    fake_criu(monkeypatch, tmp_path, says)
    with pytest.raises(Unknown, match=reason):
        criu.check(True)


def test_no_criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "absent"))
    with pytest.raises(Unknown, match=r"criu binary not found.*install criu"):
        criu.check(True)
