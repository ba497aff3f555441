"""Contract: greeters, which know how to say hello."""

from __future__ import annotations

from typing import Protocol

from windlass.plugin import PluginType, contract


@contract
class Greeter(Protocol):
    """Says hello in one language; its methods may be called from any thread."""

    def greet(self, name: str) -> str:
        """Return a greeting for ``name``."""
        ...


GREETER: PluginType[Greeter] = PluginType("dev.example.greeter.v1", Greeter)
