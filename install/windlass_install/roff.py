"""Manual pages as roff(7): the few macros of man(7) that a command's page needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from windlass import __version__


def escape(text: str) -> str:
    """Return text as roff prints it: nothing in it is a request, hyphens of options stay those of ASCII."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return "\n".join(f"\\&{line}" if line.startswith(".") else line for line in text.splitlines())


def bold(text: str) -> str:
    """Return text in bold."""
    return f"\\fB{escape(text)}\\fR"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return terms and what they mean, such as options."""
    return "\n".join(f".TP\n{bold(term)}\n{escape(meaning) or chr(92) + '&'}" for term, meaning in pairs)


def paragraphs(text: str) -> str:
    """Return text whose paragraphs are separated by blank lines."""
    return "\n.PP\n".join(escape(" ".join(part.split())) for part in text.split("\n\n") if part.strip())


@dataclass(frozen=True)
class Page:
    """A manual page."""

    name: str
    section: int
    summary: str
    synopsis: str
    parts: list[tuple[str, str]] = field(default_factory=list)
    """Titles, and roff below them; what is empty is left out."""
    see_also: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The page's file name."""
        return f"{self.name}.{self.section}"

    def text(self) -> str:
        """Return the page as roff. It has no date, so that the same version has the same page."""
        head = f'.TH "{escape(self.name.upper())}" {self.section} "" "windlass {__version__}" "Windlass"'
        command, _, rest = self.synopsis.partition(" [") if " [" in self.synopsis else (self.synopsis, "", "")
        parts = [
            ("NAME", f"{escape(self.name)} \\- {escape(self.summary)}"),
            ("SYNOPSIS", f"{bold(command)}{escape(' [' + rest) if rest else ''}"),
            *self.parts,
            ("SEE ALSO", ", ".join(map(bold, self.see_also))),
        ]
        return "\n".join([head, *(f".SH {title}\n{body}" for title, body in parts if body)]) + "\n"
