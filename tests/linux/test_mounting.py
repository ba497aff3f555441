"""Mounts are carried out as described, completely or not at all, and nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.errors import InvalidArgument, Unimplemented
from windlass_linux import calls as linux
from windlass_linux import idmap, mounting, overlay_mount
from windlass_linux.mount_options import parse_options

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    yield
    if os.geteuid() == 0:
        mounting.unmount_all(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def overlay(*options: str) -> Mount:
    return Mount("overlay", "overlay", options)


def layers(tmp_path: Path, count: int, length: int = 60) -> list[str]:
    """Make lower directories with long names, each with a file of its number."""
    made = []
    for number in range(count):
        directory = tmp_path / "layers" / f"{number:0{length}}"
        directory.mkdir(parents=True)
        (directory / f"file{number}").touch()
        made.append(str(directory))
    return made


# Options


def test_options_are_sorted_by_who_acts_on_them() -> None:
    """Later words win over earlier ones; what nobody knows is for the filesystem."""
    options = parse_options(["ro", "rw", "nosuid", "rbind", "rslave", "loop", "size=1M", "uidmap=0:1:2"])

    assert options.flags == linux.MS_NOSUID | linux.MS_BIND | linux.MS_REC
    assert options.propagation == (linux.MS_SLAVE | linux.MS_REC,)
    assert options.data == ("size=1M",)
    assert (options.loop, options.uidmap, options.gidmap) == (True, "0:1:2", "")


def test_an_option_for_a_handler_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="X-containerd"):
        parse_options(["X-containerd.mkdir.path=/x"])


def test_read_only_overlay_moves_the_upper_directory_down() -> None:
    made = mounting.read_only([overlay("workdir=/w", "upperdir=/u", "lowerdir=/a:/b", "index=off")])
    assert made == (overlay("lowerdir=/u:/a:/b", "index=off"),)


def test_read_only_others_get_one_ro() -> None:
    made = mounting.read_only([Mount("bind", "/s", ("rw", "ro", "rbind"), "sub")])
    assert made == (Mount("bind", "/s", ("rbind", "ro"), "sub"),)


def test_volatile_is_dropped_from_overlay_only() -> None:
    other = Mount("x", "", ("volatile",))
    made = mounting.without_volatile([overlay("volatile", "fsync=volatile", "lowerdir=/a"), other])
    assert made == (overlay("lowerdir=/a"), other)


def test_layers_are_split_at_bare_colons() -> None:
    """A backslash keeps a colon in the name; parameters take names as they are."""
    assert overlay_mount.parse(["lowerdir=/a\\:b:/c", "userxattr"]) == [
        ("lowerdir+", "/a:b"),
        ("lowerdir+", "/c"),
        ("userxattr", ""),
    ]


@pytest.mark.parametrize(
    ("lowers", "common", "short"),
    [
        ("/a/b/1/fs:/a/b/2/fs", "/a/b", "1/fs:2/fs"),
        ("/abc/1:/abd/1", "/", "/abc/1:/abd/1"),
        ("/only", "/", "/only"),
    ],
)
def test_names_of_layers_are_shortened_at_separators(lowers: str, common: str, short: str) -> None:
    assert overlay_mount.shorten([f"lowerdir={lowers}", "x"]) == (common, [f"lowerdir={short}", "x"])


def test_mappings_are_checked() -> None:
    assert idmap.parse_mapping("0:1000:1,1:2000:10") == ((0, 1000, 1), (1, 2000, 10))
    assert idmap.root_of("5:1:1,0:1000:1") == 1000
    for text in ("", "0:0", "0:0:0", "a:0:1", "0:4294967295:1", "0:0:1,", "0:-1:1"):
        with pytest.raises(InvalidArgument):
            idmap.parse_mapping(text)
    with pytest.raises(InvalidArgument):
        idmap.root_of("1:1000:5")


def test_fuse_is_refused_by_name() -> None:
    with pytest.raises(Unimplemented, match="sshfs"):
        mounting.mount_one(Mount("fuse3.sshfs", "x"), "/nonexistent")


# Mounting


@needs_root
def test_a_read_only_bind_refuses_writes(tmp_path: Path, target: Path) -> None:
    """Linux takes the flag only in a second call."""
    (tmp_path / "source").mkdir()
    mounting.mount_all([Mount("bind", str(tmp_path / "source"), ("ro", "rbind"))], target)
    with pytest.raises(OSError, match="Read-only"):
        (target / "x").touch()
    (tmp_path / "source/x").touch()


@needs_root
def test_propagation_is_a_call_of_its_own(tmp_path: Path, target: Path) -> None:
    mounting.mount_all([Mount("tmpfs", "tmpfs", ("size=1M", "rshared"))], target)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    assert any(f" {target} " in line and " shared:" in line for line in lines)


@needs_root
def test_a_target_is_resolved_inside_the_root(tmp_path: Path, target: Path) -> None:
    """A link in the root that points outside leads to the same path inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = target / str(outside).lstrip("/")
    inside.mkdir(parents=True)
    (target / "link").symlink_to(outside)
    mounting.mount_all([Mount("tmpfs", "tmpfs", (), "/link")], target)
    assert not outside.is_mount()
    assert inside.is_mount()


@needs_root
def test_all_or_none(tmp_path: Path, target: Path) -> None:
    """When one of several fails, those before it are undone, and the error says which and where."""
    good = Mount("tmpfs", "tmpfs")
    with pytest.raises(OSError, match="cannot mount nosuchfs source") as caught:
        mounting.mount_all([good, good, Mount("nosuchfs", "source")], target)
    assert caught.value.filename == str(target)
    assert mounting.mounts_below(target) == []


@needs_root
def test_unmount_all_takes_what_is_stacked_and_below(target: Path) -> None:
    """Also names with spaces, and busy ones."""
    tmpfs = Mount("tmpfs", "tmpfs")
    mounting.mount_all([tmpfs, tmpfs], target)
    (target / "a b\\c").mkdir()
    mounting.mount_all([tmpfs], target / "a b\\c")
    held = os.open(target / "a b\\c", os.O_RDONLY)
    assert mounting.mounts_below(target) == [str(target), str(target), str(target / "a b\\c")]
    try:
        mounting.unmount_all(target)
    finally:
        os.close(held)
    assert mounting.mounts_below(target) == []
    mounting.unmount_all(target)
    mounting.unmount_all(target / "missing")


@needs_root
def test_many_layers_are_mounted_by_parameters(tmp_path: Path, target: Path) -> None:
    """More options than a page holds: every layer is seen."""
    lowers = layers(tmp_path, 128)
    mounting.mount_all([overlay(f"lowerdir={':'.join(lowers)}", "index=off")], target)
    assert len(list(target.iterdir())) == 128


@needs_root
def test_many_layers_are_mounted_by_short_names(tmp_path: Path, target: Path) -> None:
    """The way for older Linux; the process stays in its directory."""
    lowers = layers(tmp_path, 40, length=60)
    before = Path.cwd()
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    data = [f"workdir={tmp_path}/work", f"upperdir={tmp_path}/upper", f"lowerdir={':'.join(lowers)}"]
    overlay_mount.mount_by_short_names(str(target), 0, data)
    assert Path.cwd() == before
    assert len(list(target.iterdir())) == 40
    (target / "new").touch()
    assert (tmp_path / "upper/new").exists()


@needs_root
def test_too_many_layers_for_short_names_are_refused(tmp_path: Path, target: Path) -> None:
    """Linux would cut the options off and mount something else."""
    with pytest.raises(OSError, match="too long"):
        overlay_mount.mount_by_short_names(str(target), 0, [f"lowerdir={':'.join(layers(tmp_path, 80))}"])


@needs_root
def test_layers_that_are_missing_are_told(tmp_path: Path, target: Path) -> None:
    lowers = [*layers(tmp_path, 80), str(tmp_path / "missing")]
    with pytest.raises(OSError, match="missing"):
        mounting.mount_all([overlay(f"lowerdir={':'.join(lowers)}")], target)


MAPPED = ("uidmap=0:1000:65536", "gidmap=0:2000:65536")


@needs_root
def test_a_mapped_bind_shows_other_owners(tmp_path: Path, target: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").touch()
    mounting.mount_all([Mount("bind", str(tmp_path / "source"), (*MAPPED, "ro", "rbind"))], target)
    status = (target / "file").stat()
    assert (status.st_uid, status.st_gid) == (1000, 2000)
    with pytest.raises(OSError, match="Read-only"):
        (target / "x").touch()


@needs_root
@pytest.mark.parametrize("detached", [True, False])
def test_a_mapped_overlay_shows_other_owners(
    tmp_path: Path, target: Path, detached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lower files are shown mapped, upper ones as they are; on older Linux by way of temporary mounts."""
    if detached and idmap.linux_version() < idmap.DETACHED_LAYERS:
        pytest.skip("this Linux takes no detached mounts as layers")
    if not detached:
        monkeypatch.setattr(idmap, "DETACHED_LAYERS", (999, 0))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lowers = layers(tmp_path, 3)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    fds = len(os.listdir("/proc/self/fd"))
    parts = (f"workdir={tmp_path}/work", f"upperdir={tmp_path}/upper", f"lowerdir={':'.join(lowers)}")
    mounting.mount_all([overlay(*MAPPED, *parts)], target)
    assert {path.stat().st_uid for path in target.iterdir()} == {1000}
    assert len(os.listdir("/proc/self/fd")) == fds
    assert mounting.mounts_below(tmp_path) == [str(target)]
    assert not list(tmp_path.glob("windlass-layer-*"))


@needs_root
def test_the_user_namespace_leaves_no_process(tmp_path: Path) -> None:
    """Nor is it seen by whoever waits for children."""
    before = own_children()
    namespace = idmap.user_namespace("0:1000:10", "0:1000:10")
    os.close(namespace)
    assert own_children() <= before


def own_children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@needs_root
def test_half_a_mapping_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(InvalidArgument, match="both"):
        mounting.mount_all([Mount("bind", str(tmp_path), ("uidmap=0:1:1", "rbind"))], target)
    with pytest.raises(InvalidArgument, match="cannot be mapped"):
        mounting.mount_all([Mount("tmpfs", "tmpfs", MAPPED)], target)


@needs_root
def test_a_file_is_mounted_through_a_loop_device(tmp_path: Path, target: Path) -> None:
    """The device is free again when the mount is gone."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True, timeout=30)
    if made.returncode:
        pytest.skip("no mkfs.ext4 here")
    mounting.mount_all([Mount("ext4", str(image), ("loop", "ro"))], target)
    assert (target / "lost+found").is_dir()
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    device = next(line.split(" - ")[1].split()[1] for line in lines if f" {target} " in line)
    mounting.unmount_all(target)
    backing = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
    assert not backing.exists() or str(image) not in backing.read_text()


@needs_root
def test_a_temporary_mount_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), mounting.mounted([Mount("tmpfs", "tmpfs")], tmp_path) as place:
        assert Path(place).is_mount()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_mounts_of_a_threads_own_namespace_are_taken_away(tmp_path: Path) -> None:
    """A thread that has left the process's mount namespace looks at its own, and leaves no directory behind."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
            with mounting.mounted([Mount("tmpfs", "tmpfs")], tmp_path):
                pass
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
    assert not list(tmp_path.iterdir())
