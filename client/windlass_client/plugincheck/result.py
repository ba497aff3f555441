"""The result of one check of one plugin."""

from __future__ import annotations

from dataclasses import asdict, dataclass

PASSED, NOTE, FAILED = "passed", "note", "failed"


@dataclass(frozen=True)
class Result:
    """One line of the report."""

    plugin: str
    check: str
    result: str
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """Return it as the report prints it."""
        return asdict(self)
