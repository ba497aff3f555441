"""Contract: checks, which compare what plugins keep with what is on disk while no daemon runs (`windlass fsck`)."""

from __future__ import annotations

from typing import Protocol

from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be: object, state, remedy."""

    object: str
    state: str
    remedy: str
    """What is to be done, or what has been done."""
    repaired: bool = False

    def __str__(self) -> str:
        return f"{self.object} {self.state}; {self.remedy}"


@contract
class Checked(Protocol):
    """Something that can be checked. A snapshotter may be one too, and is then asked with the store that names it."""

    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        """Return what is wrong, and mend what can be mended without losing anything that is there if ``repair``.

        ``deep`` reads every byte. Nothing else uses the plugin meanwhile. May be
        killed at any moment and run again.
        """
        ...


CHECK: PluginType[Checked] = PluginType("io.windlass.check.v1", Checked)
