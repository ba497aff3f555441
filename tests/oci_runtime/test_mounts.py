"""Mounts as the specification has them, and where a root file system's links would lead them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_linux import mounting
from windlass_oci_runtime.report import Failure


def with_mount(*arguments: str, **mount: object) -> Spec:
    document = spec(*arguments)
    document["mounts"].append(mount)
    return document


def attributes(runtime: Runtime, path: str, **mount: object) -> str:
    """Return the attributes and optional fields of a mount as mountinfo has them."""
    code, output = runtime.run(with_mount("cat", "/proc/self/mountinfo", destination=path, **mount))
    assert code == 0, output
    line = next(each for each in output.splitlines() if each.split()[4] == path)
    return line.split(" - ")[0].split(maxsplit=5)[5]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["rbind"], "rw,relatime"),
        (["bind", "ro", "nosuid", "nodev", "noexec"], "ro,nosuid,nodev,noexec,relatime"),
        (["rbind", "rro"], "ro,relatime"),
        (["bind", "ro", "rw"], "rw,relatime"),
        (["bind", "noatime"], "rw,noatime"),
        (["bind", "strictatime", "nosymfollow"], "rw,nosymfollow"),
    ],
)
def test_attributes_of_binds(runtime: Runtime, tmp_path: Path, options: list[str], expected: str) -> None:
    (tmp_path / "source").mkdir()
    found = attributes(runtime, "/data", type="bind", source=str(tmp_path / "source"), options=[*options, "private"])
    assert found.strip() == expected


def test_propagation(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    found = attributes(runtime, "/data", type="bind", source=str(tmp_path / "source"), options=["bind", "rshared"])
    assert "shared:" in found


def test_a_tmpfs_has_what_the_image_has_there(runtime: Runtime) -> None:
    """`tmpcopyup`, with owners and links."""
    (runtime.rootfs / "seeded/inner").mkdir(parents=True)
    (runtime.rootfs / "seeded/inner/file").write_text("from the image")
    (runtime.rootfs / "seeded/link").symlink_to("/etc/passwd")
    os.chown(runtime.rootfs / "seeded/inner", 7, 8)
    script = "cat /seeded/inner/file; stat -c ' %u:%g' /seeded/inner; ls -l /seeded/link; touch /seeded/new"
    document = with_mount(
        "sh", "-c", script, destination="/seeded", type="tmpfs", source="tmpfs", options=["tmpcopyup", "size=1m"]
    )
    code, output = runtime.run(document)
    assert code == 0 and output.startswith("from the image 7:8\n") and "/etc/passwd" in output
    assert not (runtime.rootfs / "seeded/new").exists()


def test_links_of_the_image_stay_inside(runtime: Runtime, tmp_path: Path) -> None:
    """The host's directory of that name is not touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (runtime.rootfs / "way").symlink_to(outside)
    (tmp_path / "source").mkdir()
    document = with_mount(
        "ls", "/", destination="/way/in", type="bind", source=str(tmp_path / "source"), options=["bind"]
    )
    code, _ = runtime.run(document)
    assert code == 0
    assert list(outside.iterdir()) == []
    assert (runtime.rootfs / str(outside).lstrip("/") / "in").is_dir()


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_are_not_mounted_through_links(runtime: Runtime, name: str) -> None:
    (runtime.rootfs / name).rmdir()
    (runtime.rootfs / name).symlink_to("tmp")
    document = spec("true")
    document["mounts"] = [
        {"destination": f"/{name}", "type": {"proc": "proc", "sys": "sysfs"}[name], "source": name},
    ]
    with pytest.raises(Failure, match=f"mounting .* to rootfs at /{name}: too many levels of symbolic links"):
        runtime.create(document)


def test_a_loop_of_links_is_an_error(runtime: Runtime) -> None:
    (runtime.rootfs / "a").symlink_to("b")
    (runtime.rootfs / "b").symlink_to("a")
    document = with_mount("true", destination="/a/in", type="tmpfs", source="tmpfs")
    with pytest.raises(Failure, match="mounting tmpfs tmpfs to rootfs at /a/in: too many levels of symbolic links"):
        runtime.create(document)


def test_a_file_where_a_directory_is_needed_is_an_error(runtime: Runtime) -> None:
    (runtime.rootfs / "file").write_text("")
    document = with_mount("true", destination="/file", type="tmpfs", source="tmpfs")
    with pytest.raises(Failure, match="mounting tmpfs tmpfs to rootfs at /file: not a directory"):
        runtime.create(document)


def test_masks_and_read_only_paths(runtime: Runtime) -> None:
    (runtime.rootfs / "secret").write_text("seen")
    (runtime.rootfs / "hidden").mkdir()
    (runtime.rootfs / "hidden/file").write_text("")
    script = "cat /secret; ls /hidden; touch /fixed/x && echo wrote; touch /hidden/x && echo hid; true"
    (runtime.rootfs / "fixed").mkdir()
    document = spec("sh", "-c", script, maskedPaths=["/secret", "/hidden", "/none"], readonlyPaths=["/fixed", "/none"])
    code, output = runtime.run(document)
    assert code == 0
    assert "seen" not in output and "wrote" not in output and "hid\n" not in output


def test_a_read_only_root(runtime: Runtime) -> None:
    document = spec("touch", "/x")
    document["root"]["readonly"] = True
    code, output = runtime.run(document)
    assert code == 1 and "Read-only file system" in output


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"destination": "/x", "type": "bind"}, "mount /x: a bind mount needs a source"),
        (
            {"destination": "/x", "type": "tmpfs", "options": ["idmap"]},
            "mount /x: only bind mounts can have mapped IDs",
        ),
        ({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}, "tmpcopyup is an option of tmpfs"),
    ],
)
def test_mounts_that_make_no_sense_are_refused(runtime: Runtime, mount: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        runtime.create(with_mount("true", **mount))


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (
            {"type": "bind", "source": "/does/not/exist", "options": ["bind"]},
            "bind /does/not/exist to rootfs at /x: no such file",
        ),
        ({"type": "nofs", "source": "none"}, "mounting nofs none to rootfs at /x: no such device"),
        (
            {"type": "tmpfs", "source": "tmpfs", "options": ["sizee=1m"]},
            "mounting tmpfs tmpfs to rootfs at /x: invalid argument",
        ),
    ],
)
def test_what_linux_does_not_mount_is_named(runtime: Runtime, mount: dict[str, object], words: str) -> None:
    with pytest.raises(Failure, match=words):
        runtime.create(with_mount("true", destination="/x", **mount))


def test_what_is_mounted_below_a_shared_bind_is_the_hosts_too(runtime: Runtime) -> None:
    """Kubernetes calls that bidirectional; a volume driver in a pod mounts for its node."""
    shared = runtime.directory / "shared"
    (shared / "in").mkdir(parents=True)
    linux.mount(shared, shared, "", linux.MS_BIND)
    try:
        linux.mount("", shared, "", linux.MS_SHARED)
        document = with_mount(
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /x/in && echo > /x/in/file && sleep 1000",
            destination="/x",
            type="bind",
            source=str(shared),
            options=["rbind", "rshared"],
        )
        document["linux"]["rootfsPropagation"] = "rshared"
        for sets in document["process"]["capabilities"].values():
            sets.append("CAP_SYS_ADMIN")
        box = runtime.create(document)
        box.start()
        deadline = time.monotonic() + 10
        while not (shared / "in/file").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        box.kill()
    finally:
        for place in reversed(mounting.mounts_below(shared)):
            linux.umount2(place, linux.MNT_DETACH)
