"""A command line as runc reads it: options before operands, `--name value`, `--name=value` or `-n value`.

argparse would take as long to import as most commands run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Kinds = Mapping[str, str]
    """Options by name: "" for a flag, "text", "number" or "list" for one that takes a value."""


class Usage(Exception):
    """A command line that cannot be read."""


class Options:
    """What a command line says."""

    __slots__ = ("_found", "_kinds", "operands")

    def __init__(self, kinds: Kinds, found: Mapping[str, list[str]], operands: list[str]) -> None:
        self._kinds = kinds
        self._found = found
        self.operands = operands

    def has(self, name: str) -> bool:
        """Return whether an option was given, and not as `--name=false`."""
        given = self._found.get(name)
        return given is not None and given[-1].lower() != "false"

    def text(self, name: str, default: str = "") -> str:
        """Return an option's last value."""
        return self._found[name][-1] if name in self._found else default

    def number(self, name: str, default: int = 0) -> int:
        """Return an option's value as a number. Raises Usage."""
        text = self.text(name)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise Usage(f"--{name} {text!r} is not a number") from None

    def all(self, name: str) -> list[str]:
        """Return all values of an option that may be given several times."""
        return self._found.get(name, [])


def read(arguments: Sequence[str], kinds: Kinds, letters: Mapping[str, str]) -> Options:
    """Read options up to the first operand; ``letters`` are short names. Raises Usage."""
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        name = letters.get(name, name)
        if name not in kinds:
            raise Usage(f"flag provided but not defined: {word}")
        if kinds[name] and not equals:
            if not rest:
                raise Usage(f"flag needs an argument: {word}")
            value = rest.pop(0)
        found.setdefault(name, []).append(value)
    return Options(kinds, found, rest)
