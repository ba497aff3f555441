"""What tests of images need of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass_snapshot_erofs.images import Images


def missing() -> str:
    if os.geteuid() != 0:
        return "mounting needs root"
    if not Images().program:
        return "mkfs.erofs is not installed; apt install erofs-utils"
    if "\terofs\n" not in Path("/proc/filesystems").read_text():
        return "this Linux has no erofs"
    return ""


needs_erofs = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")
