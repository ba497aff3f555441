"""Overlay mounts of so many layers that their options do not fit the page that mount(2) takes.

Linux 6.7 and newer take each lower directory in a call of its own. Before that
the directories are named relative to the one they share, by a thread that has
its own working directory.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Sequence

from windlass_linux import calls as linux

MAX_STRING = 255
"""fsconfig(2): strings end at 256 bytes with their zero."""

_ATTRIBUTES = (
    (linux.MS_RDONLY, linux.MOUNT_ATTR_RDONLY),
    (linux.MS_NOSUID, linux.MOUNT_ATTR_NOSUID),
    (linux.MS_NODEV, linux.MOUNT_ATTR_NODEV),
    (linux.MS_NOEXEC, linux.MOUNT_ATTR_NOEXEC),
    (linux.MS_NOATIME, linux.MOUNT_ATTR_NOATIME),
    (linux.MS_STRICTATIME, linux.MOUNT_ATTR_STRICTATIME),
    (linux.MS_NODIRATIME, linux.MOUNT_ATTR_NODIRATIME),
    (linux.MS_NOSYMFOLLOW, linux.MOUNT_ATTR_NOSYMFOLLOW),
)


def mount(target: str, flags: int, data: Sequence[str]) -> None:
    """Attach an overlay at ``target``; ``data`` are its options as one call would take them."""
    parameters = parse(data)
    if all(len(os.fsencode(value)) <= MAX_STRING for _, value in parameters):
        try:
            mount_by_parameters(target, flags, parameters)
            return
        except OSError as error:
            # Older Linux knows fsopen(2) but not lowerdir+, or not even the call.
            if error.errno not in (errno.ENOSYS, errno.EINVAL):
                raise
    mount_by_short_names(target, flags, data)


def parse(data: Sequence[str]) -> list[tuple[str, str]]:
    """Split options into keys and values, one ``lowerdir+`` for each lower directory, nearest first."""
    parameters = []
    for option in data:
        key, _, value = option.partition("=")
        if key == "lowerdir":
            parameters += [("lowerdir+", _unescape(path)) for path in split_lower(value)]
        elif key in ("upperdir", "workdir"):
            parameters.append((key, _unescape(value)))
        else:
            parameters.append((key, value))
    return parameters


def split_lower(value: str) -> list[str]:
    """Split at the colons that no backslash precedes."""
    return re.findall(r"(?:[^:\\]|\\.)+", value)


def _unescape(path: str) -> str:
    return re.sub(r"\\(.)", r"\1", path)


def mount_by_parameters(target: str, flags: int, parameters: Sequence[tuple[str, str]]) -> None:
    """Mount through fsopen(2)."""
    filesystem = linux.fsopen("overlay")
    try:
        try:
            for key, value in parameters:
                if value:
                    linux.fsconfig(filesystem, linux.FSCONFIG_SET_STRING, key, value)
                else:
                    linux.fsconfig(filesystem, linux.FSCONFIG_SET_FLAG, key)
            if flags & linux.MS_RDONLY:
                linux.fsconfig(filesystem, linux.FSCONFIG_SET_FLAG, "ro")
            linux.fsconfig(filesystem, linux.FSCONFIG_CMD_CREATE)
        except OSError as error:
            raise OSError(error.errno, messages(filesystem) or error.strerror, target) from error
        attributes = sum(attribute for flag, attribute in _ATTRIBUTES if flags & flag)
        detached = linux.fsmount(filesystem, attr_flags=attributes)
    finally:
        os.close(filesystem)
    try:
        linux.move_mount(detached, "", linux.AT_FDCWD, target, MOVE_HERE)
    finally:
        os.close(detached)


MOVE_HERE = linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_SYMLINKS


def messages(filesystem: int) -> str:
    """Return what Linux has to say about a failed fsconfig(2)."""
    said: list[str] = []
    while True:
        try:
            line = os.read(filesystem, 4096)
        except OSError:
            # ENODATA ends the log.
            return "; ".join(said)
        said.append(line.decode(errors="replace").strip())


def mount_by_short_names(target: str, flags: int, data: Sequence[str]) -> None:
    """Mount with lower directories relative to the one they share; without one Linux answers as it will."""
    common, shortened = shorten(data)
    # What does not fit is cut off by Linux, and something else mounted.
    if len(os.fsencode(",".join(shortened))) >= os.sysconf("SC_PAGE_SIZE"):
        raise OSError(errno.E2BIG, "options with the names of so many layers are too long for this Linux", target)
    # A relative target would be looked up in the wrong place, and /proc/self is another for a thread.
    place = os.open(target, os.O_PATH | os.O_CLOEXEC)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            linux.unshare(linux.CLONE_FS)
            os.chdir(common)
            linux.mount("overlay", f"/proc/self/fd/{place}", "overlay", flags, ",".join(shortened))
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="overlay-mount")
    try:
        thread.start()
        thread.join()
    finally:
        os.close(place)
    for failure in failures:
        raise failure


def shorten(data: Sequence[str]) -> tuple[str, list[str]]:
    """Return the directory that all lower directories share, and the options with names relative to it."""
    lowers = [path for option in data if option.startswith("lowerdir=") for path in split_lower(option[9:])]
    if len(lowers) < 2 or not all(path.startswith("/") for path in lowers):
        return "/", list(data)
    common = os.path.commonpath(lowers)
    if common == "/":
        return common, list(data)
    short = "lowerdir=" + ":".join(os.path.relpath(path, common) for path in lowers)
    return _unescape(common), [short if option.startswith("lowerdir=") else option for option in data]
