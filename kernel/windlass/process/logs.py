"""Log lines in containerd's two forms: text as logrus writes it, and JSON.

Fields that a call passes in ``extra`` follow the message as ``key=value``.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
from collections.abc import Collection

from windlass import tracing

TRACE = 5
PANIC = 60
LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": PANIC,
}
_NAMES = {number: name for name, number in LEVELS.items()}
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[A-Za-z0-9._/@^+-]+")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = {key: value for key, value in vars(record).items() if key not in _OWN}
    if tracing.active and "trace_id" not in fields and (span := tracing.current.get()) is not None:
        fields["trace_id"] = span.trace
    return fields


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class Text(logging.Formatter):
    """``time="…" level=info msg="…" key=value``, a stack trace on the lines after."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines for a record."""
        pairs = {"time": f'"{_time(record)}"', "level": _level(record)}
        pairs["msg"] = json.dumps(record.getMessage(), ensure_ascii=False)
        pairs |= {key: _quoted(value) for key, value in _fields(record).items()}
        line = " ".join(f"{key}={value}" for key, value in pairs.items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        line = {"time": _time(record), "level": _level(record), "msg": record.getMessage()} | _fields(record)
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class Ours(logging.Filter):
    """Lets pass what Windlass and plugins say; of what libraries say below a warning, nothing above ``trace``."""

    def __init__(self, packages: Collection[str]) -> None:
        """Know plugins by the first part of their modules' names."""
        super().__init__()
        self._packages = frozenset(packages)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged."""
        package = record.name.partition(".")[0]
        return record.levelno >= logging.WARNING or package in self._packages or package.startswith("windlass")


def set_up(level: str, form: str, packages: Collection[str] = (), trace_ids: bool = False) -> None:
    """Log to stderr from now on; empty strings are ``info`` and ``text``, ``packages`` are plugins'.

    On level debug and below, or with ``trace_ids``, lines about a client's request have the ID of its trace.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    if level != "trace":
        handler.addFilter(Ours(packages))
    logging.basicConfig(handlers=[handler], level=LEVELS[level or "info"], force=True)
    tracing.active = trace_ids or tracing.recorder is not None or LEVELS[level or "info"] <= logging.DEBUG
    logging.raiseExceptions = False  # a broken pipe on stderr must not make more of itself
