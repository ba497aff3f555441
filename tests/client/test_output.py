"""Progress: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from windlass_client import format, listing, output
from windlass_client.cli import fail

SCRIPT = """
from windlass_client import output
with output.progress() as show:
    show("Resolving from example.org", "", 0, 0)
    for done in (0, 50, 100):
        show("downloading", "layer-sha256:" + "a" * 64, done, 100)
        show("downloading", "layer-sha256:" + "b" * 64, done, 100)
    show("complete", "layer-sha256:" + "a" * 64, 100, 100)
    show("unpacking", "sha256:" + "c" * 64, 1, 3)
    show("[bold]", "\\x1b[2J", 0, 0)
"""


def test_a_terminal_shows_a_bar_for_each_layer() -> None:
    """Each by what tells it apart; nothing that a name has in it is obeyed, and at the end all bars are gone."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:
            pass  # how Linux tells that the other side has gone
        assert process.wait(20) == 0
    os.close(ours)
    text = shown.decode()
    for word in ("downloading bbbbbbbbbbbb", "complete aaaaaaaaaaaa", "100%", "unpacking", "[bold] ?[2J"):
        assert word in text, word
    assert "Traceback" not in text


def test_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is done, with its size."""
    with output.progress() as show:
        show("Resolving", "", 0, 0)
        show("downloading", "layer", 1, 2048)
        show("complete", "layer", 2048, 2048)
    with output.progress(quiet=True) as show:
        show("complete", "layer", 2048, 2048)

    assert capsys.readouterr().err == "Resolving\ncomplete layer (2.0 KiB)\n"


def test_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON as it is, in letters that people read."""
    output.document({"name": "ä"})
    assert capsys.readouterr().out == '{\n  "name": "ä"\n}\n'


def test_nothing_that_a_terminal_obeys_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """U+009B begins a control sequence, U+202E turns the text that follows: JSON alone escapes neither."""
    content = {"label": "a\x1b\x9b2Jé\u202e"}
    output.document(content)
    listing.documents([content], "")
    listing.documents([content], "{{json .}}")
    format.rows([content], {}, "json")
    shown = capsys.readouterr().out
    assert shown.replace("\n", "").isprintable() and shown.count("\\u009b2Jé\\u202e") == 4
    assert [json.loads(line) for line in shown.splitlines()[-2:]] == [content, content]
    fail("image \x1b[2J does not exist")
    assert capsys.readouterr().err == "windlass: image ?[2J does not exist\n"
