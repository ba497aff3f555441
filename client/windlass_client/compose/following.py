"""The output of several containers as one: each line with the name of its container, in a color of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass_client import output
from windlass_client.compose.engine import Engine, Member

COLORS = ("36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1")


@dataclass(frozen=True)
class Style:
    """How lines look."""

    color: bool = True
    prefix: bool = True
    timestamps: bool = False


def style(no_color: bool = False, no_prefix: bool = False, timestamps: bool = False) -> Style:
    """Return what options and the terminal ask for; colors are for terminals, unless NO_COLOR is set."""
    color = not no_color and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return Style(color, not no_prefix, timestamps)


class Printer:
    """Prints lines of containers; the names are as wide as the longest of those that are known."""

    def __init__(self, style: Style, project: str, write: Callable[[str], object] = sys.stdout.write) -> None:
        self._style = style
        self._project = project
        self._write = write
        self._width = 0
        self._colors: dict[str, str] = {}

    def know(self, members: Sequence[Member]) -> None:
        """Learn names, so that the first line is as wide as the last."""
        for each in members:
            self._width = max(self._width, len(self._short(each.name)))
            self._colors.setdefault(each.name, COLORS[len(self._colors) % len(COLORS)])

    def line(self, name: str, text: str, time: str = "") -> None:
        """Print a line of a container."""
        self._write(f"{self._prefix(name)}{f'{time} ' if self._style.timestamps and time else ''}{text}\n")

    def say(self, text: str) -> None:
        """Print a line about containers."""
        self._write(f"{text}\n")

    def _prefix(self, name: str) -> str:
        if not self._style.prefix:
            return ""
        label = f"{output.printable(self._short(name)).ljust(self._width)}  | "
        return f"\x1b[{self._colors.get(name, '0')}m{label}\x1b[0m" if self._style.color else label

    def _short(self, name: str) -> str:
        return name.removeprefix(f"{self._project}-")


@dataclass(frozen=True)
class Wish:
    """Which lines are wanted."""

    follow: bool = False
    tail: int | None = None
    since: str = ""
    until: str = ""


async def follow(engine: Engine, members: Sequence[Member], printer: Printer, wish: Wish) -> None:
    """Print what containers write."""

    async def one(member: Member) -> None:
        async for line in engine.logs(member.id, wish.follow, wish.tail, wish.since, wish.until):
            printer.line(member.name, line.text, line.time)

    printer.know(members)
    if wish.follow:
        await asyncio.gather(*(one(each) for each in members))
        return
    for member in members:
        await one(member)
