"""What was found: a line for each thing, with its remedy if it is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
"""Works; an optional thing is not there; something works badly; nothing, or a whole part, works."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    name: str
    state: str
    detail: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return asdict(self)


class Area:
    """Makes the findings of one area."""

    def __init__(self, name: str) -> None:
        """Name the area, such as ``linux``."""
        self.name = name

    def ok(self, name: str, detail: str = "") -> Finding:
        """Say that something works."""
        return Finding(self.name, name, OK, detail)

    def note(self, name: str, detail: str, remedy: str = "") -> Finding:
        """Say that something optional is not there, and what does not work without it."""
        return Finding(self.name, name, NOTE, detail, remedy)

    def warning(self, name: str, detail: str, remedy: str) -> Finding:
        """Say that something is not as it should be."""
        return Finding(self.name, name, WARNING, detail, remedy)

    def error(self, name: str, detail: str, remedy: str) -> Finding:
        """Say that something required is missing."""
        return Finding(self.name, name, ERROR, detail, remedy)


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield what people read: a heading for each area, a line for each finding, remedies below them."""
    area = ""
    for found in findings:
        if found.area != area:
            if area:
                yield ""
            area = found.area
            yield area
        detail = f": {found.detail}" if found.detail else ""
        yield f"  {found.state:<8} {found.name}{detail}"
        if found.remedy:
            yield f"           remedy: {found.remedy}"


def summary(findings: Iterable[Finding]) -> str:
    """Return the last line: how many are in which state."""
    states = [found.state for found in findings]
    words = {OK: "ok", NOTE: "optional and absent", WARNING: "with a warning", ERROR: "missing or broken"}
    return ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)
