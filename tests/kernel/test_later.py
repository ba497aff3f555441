"""What first calls need is imported when the daemon is ready, and nobody waits for it."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

import pytest

from windlass.process import later


def ended() -> bool:
    """Wait for the thread."""
    for thread in threading.enumerate():
        if thread.name == "later":
            thread.join(10)
    return not any(thread.name == "later" for thread in threading.enumerate())


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_modules_are_imported_in_a_thread(modules: Path) -> None:
    (modules / "needed_later.py").write_text("import threading\nNAME = threading.current_thread().name\n")
    later.load(["needed_later"], 0)
    assert ended()
    assert vars(sys.modules["needed_later"])["NAME"] == "later"


def test_one_that_cannot_be_imported_is_logged_and_the_others_are(
    modules: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (modules / "broken_later.py").write_text("raise RuntimeError('for a reason')\n")
    (modules / "sound_later.py").write_text("")
    with caplog.at_level(logging.WARNING):
        later.load(["broken_later", "missing_later", "sound_later"], 0)
        assert ended()
    assert "sound_later" in sys.modules
    assert ["broken_later" in caplog.text, "for a reason" in caplog.text, "missing_later" in caplog.text] == [True] * 3


def test_without_modules_there_is_no_thread() -> None:
    later.load([], 10)
    assert not any(thread.name == "later" for thread in threading.enumerate())
