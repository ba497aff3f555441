"""Points in time as `--since` and `--until` take them: RFC 3339, seconds since 1970, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from windlass.errors import InvalidArgument

AGO = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def stamp(text: str) -> str:
    """Return a moment as logs write it, so that the two can be compared as text. Raises InvalidArgument."""
    ago = AGO.fullmatch(text)
    if text and ago:
        hours, minutes, seconds = (float(part or 0) for part in ago.groups())
        return _written(datetime.now(UTC) - timedelta(hours=hours, minutes=minutes, seconds=seconds))
    try:
        if re.fullmatch(r"\d{1,11}(\.\d+)?", text):
            return _written(datetime.fromtimestamp(float(text), UTC))
        return _written(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC))
    except (ValueError, OverflowError, OSError):
        raise InvalidArgument(
            f"time {text[:40]!r} is not known; write 10m, 1h30m, 2026-12-01T10:00:00Z or seconds since 1970"
        ) from None


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
