"""Temporary mounts do not survive the daemon that made them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass_linux import calls as linux
from windlass_linux import mounting
from windlass_mounts.temporary import clear_mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_leftover_mounts_are_removed(tmp_path: Path) -> None:
    """Of a daemon that died; what lies in a directory that was not mounted stays."""
    (tmp_path / "m" / "mounted").mkdir(parents=True)
    (tmp_path / "m" / "kept").mkdir()
    (tmp_path / "m" / "kept" / "file").touch()
    linux.mount("none", str(tmp_path / "m" / "mounted"), "tmpfs", 0)
    try:
        clear_mounts(tmp_path / "m")
        assert mounting.mounts_below(tmp_path) == []
        assert (tmp_path / "m" / "kept" / "file").exists()
    finally:
        mounting.unmount_all(tmp_path)
