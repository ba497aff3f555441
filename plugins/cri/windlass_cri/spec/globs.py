"""Patterns as Go's path.Match has them: no wildcard matches a slash."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase


def glob_matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern matches all of a text, part by part."""
    patterns, parts = pattern.replace("[^", "[!").split("/"), text.split("/")
    try:
        return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))
    except re.error:
        return False  # as Go has it for a pattern that is malformed
