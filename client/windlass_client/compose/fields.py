"""Readers of single values: text, numbers, sizes, durations and lists, each with an error that names its place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from windlass_client.compose.values import Items, Scalar, Section, Value, is_null, items, kind, section, wrong

TRUE, FALSE = {"true", "yes", "on", "y", "1"}, {"false", "no", "off", "n", "0"}
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h|d|w)")
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Fields:
    """The values of a mapping whose keys were checked; a key that is not there reads as the default."""

    def __init__(self, value: Section, path: str) -> None:
        self.value = value
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self.value.entries and not is_null(self.value.entries[key])

    def entry(self, key: str) -> Value:
        """Return the value of a key that is there."""
        return self.value.entries[key]

    def at(self, key: str) -> str:
        """Return the way to a key."""
        return f"{self.path}.{key}"

    def text(self, key: str, default: str = "") -> str:
        """Return a text."""
        return text(self.entry(key), self.at(key)) if key in self else default

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes or no."""
        return flag(self.entry(key), self.at(key)) if key in self else default

    def number(self, key: str, default: int = 0, least: int = 0, most: int = 1 << 62) -> int:
        """Return a whole number."""
        return number(self.entry(key), self.at(key), least, most) if key in self else default

    def fraction(self, key: str) -> float:
        """Return a number that is not negative, 0 if there is none."""
        return fraction(self.entry(key), self.at(key)) if key in self else 0

    def size(self, key: str) -> int:
        """Return bytes, 0 if there are none."""
        return size(self.entry(key), self.at(key)) if key in self else 0

    def duration(self, key: str, default: float = 0) -> float:
        """Return seconds."""
        return duration(self.entry(key), self.at(key)) if key in self else default

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        return texts(self.entry(key), self.at(key)) if key in self else ()

    def command(self, key: str) -> tuple[str, ...] | None:
        """Return the words of a command, None if there is none."""
        return command(self.entry(key), self.at(key)) if key in self else None

    def choice(self, key: str, known: Collection[str], default: str) -> str:
        """Return one of some words."""
        found = self.text(key, default)
        if found not in known:
            raise wrong(self.entry(key), self.at(key), f"{found[:40]!r} is not one of {', '.join(sorted(known))}")
        return found

    def mapping(self, key: str) -> dict[str, str]:
        """Return texts by their keys; a key without a value is empty text."""
        return {name: value or "" for name, value in self.variables(key).items()}

    def variables(self, key: str) -> dict[str, str | None]:
        """Return texts by their keys; a key without a value is None."""
        found = section(self.entry(key), self.at(key)).entries if key in self else {}
        return {
            name: None if is_null(value) else text(value, f"{self.at(key)}.{name}") for name, value in found.items()
        }

    def sections(self, key: str) -> list[tuple[str, Section]]:
        """Return the mappings of a list, each with the way to it."""
        found = items(self.entry(key), self.at(key)) if key in self else ()
        paths = [f"{self.at(key)}.{position}" for position in range(len(found))]
        return [(path, section(value, path)) for path, value in zip(paths, found, strict=True)]

    def named(self, key: str) -> list[tuple[str, str, Section]]:
        """Return the mappings of a mapping: name, the way to it, and itself."""
        found = section(self.entry(key), self.at(key)).entries if key in self else {}
        paths = {name: f"{self.path}.{key}.{name}".lstrip(".") for name in found if not name.startswith("x-")}
        return [(name, path, section(found[name], path)) for name, path in paths.items()]


def text(value: Value, path: str) -> str:
    """Return a text."""
    if isinstance(value, Scalar) and value.text is not None:
        return value.text
    raise wrong(value, path, f"must be text, and is {kind(value)}")


def flag(value: Value, path: str) -> bool:
    """Return a yes or no."""
    found = text(value, path).lower()
    if found not in TRUE | FALSE:
        raise wrong(value, path, f"must be true or false, and is {kind(value)}")
    return found in TRUE


def number(value: Value, path: str, least: int, most: int) -> int:
    """Return a whole number between two others."""
    found = text(value, path)
    if not re.fullmatch(r"-?\d{1,19}", found) or not least <= int(found) <= most:
        raise wrong(value, path, f"must be a whole number from {least} to {most}, and is {kind(value)}")
    return int(found)


def fraction(value: Value, path: str) -> float:
    """Return a number that is not negative."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?|\.\d{1,9}", text(value, path)):
        raise wrong(value, path, f"must be a number such as 0.5, and is {kind(value)}")
    return float(text(value, path))


def size(value: Value, path: str) -> int:
    """Return bytes; units are powers of 1024."""
    match = SIZE.fullmatch(text(value, path).strip())
    if not match:
        raise wrong(value, path, f"must be a size such as 64m, and is {kind(value)}")
    return int(float(match[1]) * UNITS[match[2].lower()])


def duration(value: Value, path: str) -> float:
    """Return seconds."""
    found = text(value, path)
    parts = DURATION.findall(found)
    if found == "0":
        return 0
    if not parts or "".join(amount + unit for amount, unit in parts) != found:
        raise wrong(value, path, f"must be a duration such as 1m30s, and is {kind(value)}")
    return float(sum(float(amount) * SECONDS[unit] for amount, unit in parts))


def texts(value: Value, path: str) -> tuple[str, ...]:
    """Return a list of texts; a single text is a list of one."""
    if isinstance(value, Scalar) and value.text is not None:
        return (value.text,)
    return tuple(text(each, f"{path}.{position}") for position, each in enumerate(items(value, path)))


def command(value: Value, path: str) -> tuple[str, ...]:
    """Return the words of a command: a list as it is, a text split as a shell does, with no variables replaced."""
    if isinstance(value, Items):
        return texts(value, path)
    try:
        return tuple(shlex.split(text(value, path)))
    except ValueError as error:
        raise wrong(value, path, f"{kind(value)} cannot be split into words: {str(error).lower()}") from None
