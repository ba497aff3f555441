"""Questions before something is deleted, and the filters that say what is meant; as docker's prune has both."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from windlass.errors import Cancelled, InvalidArgument

Filters = Mapping[str, Sequence[str]]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def confirm(force: bool, warning: str, what: str) -> None:
    """Return if the user agrees, or said so before by --force. Raises Cancelled."""
    if force:
        return
    sys.stdout.write(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled(f"{what} has been cancelled; -f asks no question")


def filters(texts: Iterable[str], known: Sequence[str]) -> Filters:
    """Read ``KEY=VALUE`` filters. Raises InvalidArgument for a key that is not ``known``."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise InvalidArgument(f"filter {text[:100]!r} is not of the form KEY=VALUE")
        if key not in known:
            raise InvalidArgument(f"filter {key[:40]!r} is not known; known are {', '.join(known)}")
        found.setdefault(key, []).append(value)
    return found


def labelled(labels: Mapping[str, str], wanted: Iterable[str], unwanted: Iterable[str] = ()) -> bool:
    """Return whether labels have all of ``wanted`` and none of ``unwanted``, each ``KEY`` or ``KEY=VALUE``."""
    return all(_has(labels, each) for each in wanted) and not any(_has(labels, each) for each in unwanted)


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def truth(text: str, key: str) -> bool:
    """Return what a filter's ``true`` or ``false`` means. Raises InvalidArgument."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise InvalidArgument(f"filter {key}={text[:40]} is neither true nor false")
    return text.lower() in ("true", "1")


def moment(text: str) -> datetime:
    """Return the moment of a filter such as ``until=24h``, a date, or seconds since 1970. Raises InvalidArgument."""
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
        return datetime.now(UTC) - timedelta(seconds=seconds)
    try:
        if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
            return datetime.fromtimestamp(float(text), UTC)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"filter until={text[:40]} is not a length of time, a date or seconds since 1970"
        ) from None
    return found if found.tzinfo else found.astimezone()
