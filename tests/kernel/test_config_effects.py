"""Keys without effect."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from windlass.config.effects import only, without_effect
from windlass.config.toml import Mark, Table
from windlass.config.validate import Reader


@dataclass(frozen=True)
class Config:
    works: bool = False
    mode: str = without_effect("", "plain")
    tables: dict[str, object] = field(default_factory=dict, metadata=only({}))


@pytest.mark.parametrize(
    ("key", "value", "warned"),
    [
        ("works", True, False),
        ("mode", "", False),
        ("mode", "plain", False),
        ("mode", "odd", True),
        ("tables", {}, False),
    ],
)
def test_a_key_without_effect_is_a_problem_only_where_it_asks_for_one(key: str, value: object, warned: bool) -> None:
    table = Table(Mark("file", 1))
    table.put(key, Table(Mark("file", 2)) if value == {} else value, Mark("file", 2))
    reader = Reader()
    reader.read(Config, table)
    assert [problem.mark.line for problem in reader.problems] == ([2] if warned else [])


def test_it_has_its_default() -> None:
    assert Config() == Config(False, "", {})
