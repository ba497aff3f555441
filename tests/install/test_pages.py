"""Manual pages and completions: for every command, from the text of --help, and without faults of form."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from windlass_client.cli import windlass
from windlass_install.completions import scripts
from windlass_install.manpages import of_click, pages
from windlass_install.roff import Page, escape

PAGES = list(pages())


def commands(group: click.Group, path: str) -> list[str]:
    """Return the paths of all commands below a group."""
    context, found = click.Context(group), [path]
    for name in group.list_commands(context):
        each = group.get_command(context, name)
        assert each is not None
        if not each.hidden:
            found += commands(each, f"{path} {name}") if isinstance(each, click.Group) else [f"{path} {name}"]
    return found


def test_every_command_has_a_page() -> None:
    """Of the client and of the daemon, each named as its command with hyphens."""
    names = [each.file for each in PAGES]
    assert len(names) == len(set(names))
    assert {f"{path.replace(' ', '-')}.1" for path in commands(windlass, "windlass")} <= set(names)
    assert {"windlassd.8", "windlassd-config.8"} <= set(names)


def test_a_page_says_what_help_says() -> None:
    """Summary, arguments and every option with its text."""
    [run] = [each.text() for each in PAGES if each.name == "windlass-run"]
    assert "windlass\\-run \\- Run ARGUMENTS, or what IMAGE says, in a new container" in run
    assert "\\fBwindlass run\\fR [OPTIONS] IMAGE [ARGUMENTS]..." in run
    assert "\\fB\\-m, \\-\\-memory 64M\\fR\nLimit memory." in run
    assert "windlass(1)" in run


def test_the_same_version_has_the_same_pages() -> None:
    """No page has a date."""
    assert [each.text() for each in pages()] == [each.text() for each in PAGES]


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed; apt install groff-base")
def test_groff_finds_nothing_wrong(tmp_path: Path) -> None:
    """Every warning counts."""
    files = [tmp_path / each.file for each in PAGES]
    for each, file in zip(PAGES, files, strict=True):
        file.write_text(each.text())
    done = subprocess.run(
        ["groff", "-ww", "-K", "utf8", "-T", "utf8", "-man", "-z", *files], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_text_is_never_taken_for_a_request() -> None:
    """Dots and quotes at the beginning of a line, and backslashes, are printed."""
    assert escape(".so x\n'br\n\\n -x") == "\\&.so x\n\\(aqbr\n\\en \\-x"


def test_a_command_without_options_has_no_empty_section() -> None:
    """And a page without commands names none."""

    @click.command()
    def bare() -> None:
        """Do little."""

    [page] = of_click(bare, "windlass bare")
    assert isinstance(page, Page)
    assert [title for title, body in page.parts if body] == ["DESCRIPTION", "OPTIONS"]
    assert "COMMANDS" not in page.text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_programs_of_their_shell(shell: str, tmp_path: Path) -> None:
    """Each shell can read its own, and knows which command it is for."""
    text = scripts()[shell]
    assert "_WINDLASS_COMPLETE" in text and "windlass" in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; apt install {shell}")
    file = tmp_path / "completion"
    file.write_text(text)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
