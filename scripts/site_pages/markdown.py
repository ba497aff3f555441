"""Pieces of pages."""

from __future__ import annotations


def fence(language: str, text: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{text.strip()}\n```"
