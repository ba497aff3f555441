"""Whether somebody writes to a file, which decides whether it may be a disk."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from windlass_linux import loop


def test_a_file_is_written_as_long_as_it_is_open_for_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert not loop.is_written(str(path), 0)
    with path.open("rb"):
        assert not loop.is_written(str(path), 0)
    with path.open("ab"):
        assert loop.is_written(str(path), 0.05)
    assert not loop.is_written(str(path), 0)


def test_who_is_about_to_let_go_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = path.open("ab")
    timer = threading.Timer(0.2, file.close)
    timer.start()
    assert not loop.is_written(str(path), 20)
    timer.join()


WRITER = """
import sys
while True:
    open(sys.argv[1], "ab").close()
"""


def test_asking_harms_nobody(tmp_path: Path) -> None:
    """Linux tells the one who asks by a signal that somebody else opens the file just now."""
    path = tmp_path / "file"
    path.touch()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path])
    try:
        for _ in range(2000):
            loop.is_written(str(path), 0)
    finally:
        writer.kill()
        writer.wait()
    assert not loop.is_written(str(path))
