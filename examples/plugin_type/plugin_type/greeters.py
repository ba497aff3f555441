"""Two greeters."""

from __future__ import annotations


class EnglishGreeter:
    def greet(self, name: str) -> str:
        return f"Good day, {name}!"


class DanishGreeter:
    def __init__(self, *, polite: bool) -> None:
        self._word = "Goddag" if polite else "Hej"

    def greet(self, name: str) -> str:
        return f"{self._word}, {'verden' if name == 'world' else name}!"
