"""The calls of loop(4), one function each; apart from `calls`, since few processes need them."""

from __future__ import annotations

import ctypes
import os
import struct

from windlass_linux import calls

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_PARTSCAN = 8
LO_FLAGS_DIRECT_IO = 16
LO_NAME_SIZE = 64

# struct loop_info64 of linux/loop.h: its flags and name; offset and size limit are zero.
_LOOP_INFO = struct.Struct("=40x 12x I 64s 64x 32x 16x")


def loop_ctl_get_free(control: int) -> int:
    """Return the number of a loop device that was free a moment ago; ``control`` is ``/dev/loop-control``."""
    return calls.checked(calls.libc().ioctl(control, ctypes.c_ulong(LOOP_CTL_GET_FREE)), "/dev/loop-control")


def loop_configure(device: int, fd: int, lo_flags: int = 0, name: calls.StrPath = "") -> None:
    """Back the open loop device with the open file ``fd``; EBUSY when another process was faster."""
    # struct loop_config of linux/loop.h; the name is only for show, as losetup prints it.
    shown = os.fsencode(name)[: LO_NAME_SIZE - 1]
    config = struct.pack("=II 40x III I 64s 64x 32x 16x 64x", fd, 0, 0, 0, 0, lo_flags, shown)
    calls.checked(calls.libc().ioctl(device, ctypes.c_ulong(LOOP_CONFIGURE), config), name)


def loop_get_status(device: int) -> tuple[int, str]:
    """Return the flags of an open loop device and the name it was configured with; ENXIO for a free one."""
    status = ctypes.create_string_buffer(_LOOP_INFO.size)
    calls.checked(calls.libc().ioctl(device, ctypes.c_ulong(LOOP_GET_STATUS64), status))
    flags, name = _LOOP_INFO.unpack(status)
    return flags, os.fsdecode(name.rstrip(b"\0"))


def loop_set_status(device: int, lo_flags: int, name: calls.StrPath) -> None:
    """Change an open loop device's flags, of which only LO_FLAGS_AUTOCLEAR and PARTSCAN can change, and its name."""
    shown = os.fsencode(name)[: LO_NAME_SIZE - 1]
    calls.checked(calls.libc().ioctl(device, ctypes.c_ulong(LOOP_SET_STATUS64), _LOOP_INFO.pack(lo_flags, shown)), name)


def loop_clr_fd(device: int) -> None:
    """Free an open loop device, once its last user is gone; ENXIO for a free one."""
    calls.checked(calls.libc().ioctl(device, ctypes.c_ulong(LOOP_CLR_FD)))
