"""System calls raise OSError with the path, and do what the manual says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from windlass_linux import calls as linux

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_an_error_names_the_path(tmp_path: Path) -> None:
    """The path of the failed call is in the exception and in its text."""
    with pytest.raises(FileNotFoundError, match="missing") as caught:
        linux.umount2(tmp_path / "missing")
    assert caught.value.filename == str(tmp_path / "missing")


def test_openat2_stays_in_the_root(tmp_path: Path) -> None:
    """RESOLVE_IN_ROOT takes absolute links and ``..`` as a chroot would."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("inside")
    (tmp_path / "link").symlink_to("/etc/passwd")
    directory = os.open(tmp_path, os.O_PATH)
    try:
        for name in ("link", "../../etc/passwd", "etc/../../etc/passwd"):
            fd = linux.openat2(directory, name, os.O_RDONLY, resolve=linux.RESOLVE_IN_ROOT)
            with os.fdopen(fd) as file:
                assert file.read() == "inside"
        with pytest.raises(OSError) as caught:
            linux.openat2(directory, "../x", os.O_RDONLY, resolve=linux.RESOLVE_BENEATH)
        assert caught.value.errno == errno.EXDEV
    finally:
        os.close(directory)


def test_openat2_descriptors_are_close_on_exec(tmp_path: Path) -> None:
    fd = linux.openat2(linux.AT_FDCWD, tmp_path, os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_close_range_closes_exactly_the_range() -> None:
    """Descriptors outside of the range stay open."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    high = [os.dup2(fd, 900 + n) for n, fd in enumerate(fds)]
    linux.close_range(900, 901)
    for fd in high[:2]:
        with pytest.raises(OSError):
            os.fstat(fd)
    for fd in (*fds, high[2]):
        os.close(fd)


def test_a_thread_is_named() -> None:
    """In a process of its own, for the name stays."""
    code = (
        "from windlass_linux.calls import set_name; set_name('a-rather-long-name');"
        "print(open('/proc/self/comm').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "a-rather-long-n"


def test_the_module_imports_little() -> None:
    """The shim is forked with it: nothing comes along but ctypes."""
    code = "import sys; a=set(sys.modules); import windlass_linux.calls; print(*sorted(set(sys.modules)-a))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    extra = {name.split(".")[0] for name in done.stdout.split()}
    assert extra <= {"windlass_linux", "ctypes", "_ctypes", "struct", "_struct", "errno", "types", "__future__"}


@needs_root
def test_a_tmpfs_by_the_new_calls(tmp_path: Path) -> None:
    """fsopen, fsconfig, fsmount and move_mount together are a mount."""
    filesystem = linux.fsopen("tmpfs")
    linux.fsconfig(filesystem, linux.FSCONFIG_SET_STRING, "size", "1M")
    linux.fsconfig(filesystem, linux.FSCONFIG_CMD_CREATE)
    tree = linux.fsmount(filesystem, attr_flags=linux.MOUNT_ATTR_NOEXEC)
    linux.move_mount(tree, "", linux.AT_FDCWD, tmp_path, linux.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
    os.close(filesystem)
    try:
        assert os.statvfs(tmp_path).f_flag & os.ST_NOEXEC
    finally:
        linux.umount2(tmp_path)
