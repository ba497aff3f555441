#!/usr/bin/env python3
"""Draws a terminal in which commands were typed: .venv/bin/python scripts/record_terminal.py PICTURE.svg COMMANDS.

COMMANDS is a file with a command in each line. They are executed here, one after the other, and what they print is
drawn below each; a line that begins with `#` is executed and not shown.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 124
FONT_FACES = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""They would be fetched from elsewhere by whoever looks at the picture."""


def record(commands: Sequence[str], title: str) -> str:
    """Execute commands and return an SVG of the terminal. Raises SystemExit with the first that fails."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command in commands:
        shown = not command.startswith("#")
        text = command.lstrip("# ")
        done = subprocess.run(text, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S602
        if done.returncode:
            raise SystemExit(f"{text}: exit code {done.returncode}: {done.stdout.decode(errors='replace')}")
        if shown:
            console.print(Text("# ", style="bold green") + Text(text, style="bold white"))
            console.print(Text.from_ansi(done.stdout.decode(errors="replace").rstrip("\n")), highlight=False)
    return console.export_svg(title=title, theme=MONOKAI, code_format=FONT_FACES.sub("", CONSOLE_SVG_FORMAT))


def main(argv: Sequence[str] | None = None) -> int:
    """Record a session and write its picture."""
    parser = argparse.ArgumentParser(description="Draw a terminal in which commands were typed.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("commands", type=Path)
    parser.add_argument("--title", default="Windlass")
    options = parser.parse_args(argv)
    lines = [line for line in options.commands.read_text().splitlines() if line.strip()]
    options.picture.write_text(record(lines, options.title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
