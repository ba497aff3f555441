"""A third party's plugin type works like the built-in ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from plugin_type.plugin import DANISH, ENGLISH, LOBBY, DanishConfig
from windlass.boot import INIT_TIMEOUT, STOP_TIMEOUT, Daemon
from windlass.discovery import Found
from windlass.plugin import State

C = TypeVar("C")


@dataclass
class Settings:
    """A configuration in which Danes are not polite."""

    root: Path = Path("/nowhere/root")
    state: Path = Path("/nowhere/state")
    required_plugins: Collection[str] = ()
    timeouts: Mapping[str, float] = field(default_factory=lambda: {INIT_TIMEOUT: 5.0, STOP_TIMEOUT: 1.0})
    properties: Mapping[str, str] = field(default_factory=dict)

    def mark(self, *path: str) -> str:
        return ""

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        return kind(polite=False) if issubclass(kind, DanishConfig) else kind()

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        return {}


async def test_the_lobby_shows_what_every_greeter_says() -> None:
    """Greeters start first, whatever the order they were found in, and their words are exported."""
    daemon = Daemon([Found(plugin.uri, "example 1.0", plugin) for plugin in (LOBBY, ENGLISH, DANISH)], Settings())
    await daemon.start()
    try:
        records = {record.id: record for record in daemon.records}
        assert {record.state for record in records.values()} == {State.OK}
        assert records["lobby"].meta.exports == {"danish": "Hej, verden!", "english": "Good day, world!"}
    finally:
        await daemon.stop()
