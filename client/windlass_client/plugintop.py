"""What plugins are doing: calls a second, their time and failures, from two looks at the gates of a daemon."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from windlass_client.client import Client

TYPE = "io.windlass.gates.v1"
OPEN, CLOSED = "open", "closed"
_NOT_COUNTED = (NotFound, Unimplemented, InvalidArgument, FailedPrecondition)
COLUMNS = ("plugin", "calls/s", "ms/call", "longest ms", "running", "errors", "total", "breaker")
WITH_METHODS = ("plugin", "method", *COLUMNS[1:])
SORTS = ("calls", "time", "errors", "name")


@dataclass(frozen=True)
class Account:
    """What the calls of one method have cost since the daemon started; times in seconds."""

    plugin: str
    method: str
    calls: int
    failures: int
    running: int
    seconds: float
    longest: float
    open_for: float
    """Seconds for which the plugin's breaker refuses calls."""


@dataclass(frozen=True)
class Row:
    """One line of the table, about what happened between two looks."""

    plugin: str
    method: str
    rate: float
    milliseconds: float
    longest: float
    running: int
    errors: int
    total: int
    open_for: float

    def to_json(self, methods: bool) -> dict[str, object]:
        """Return the row under the names of the columns."""
        breaker = f"{OPEN}, {self.open_for:.0f} s" if self.open_for else CLOSED
        found: dict[str, object] = {
            "plugin": self.plugin,
            "method": self.method,
            "calls/s": f"{self.rate:.1f}",
            "ms/call": f"{self.milliseconds:.2f}",
            "longest ms": f"{self.longest:.1f}",
            "running": self.running,
            "errors": self.errors,
            "total": self.total,
            "breaker": breaker,
        }
        return found if methods else {name: value for name, value in found.items() if name != "method"}


async def look(client: Client) -> list[Account]:
    """Return the accounts of every plugin. Raises Unimplemented for a daemon that does not count calls."""
    try:
        options = AnyMessage(type_url=TYPE)
        answer = await client.introspection.plugin_info("io.containerd.grpc.v1", "introspection", options)
    except _NOT_COUNTED as error:
        raise _not_counted() from error
    if answer.extra.type_url != TYPE:
        raise _not_counted()
    return accounts(json.loads(answer.extra.value))


def _not_counted() -> Error:
    reason = "this daemon does not count the calls between its plugins"
    return Unimplemented(f"{reason}: only windlassd does; containerd has metrics of its RPCs, [metrics] in config.toml")


def accounts(report: Sequence[Mapping[str, object]]) -> list[Account]:
    """Read a daemon's report."""
    found = []
    for each in report:
        methods = each["methods"]
        assert isinstance(methods, list)
        found += [Account(str(each["plugin"]), open_for=_number(each["open_for"]), **method) for method in methods]
        if not methods:
            found.append(Account(str(each["plugin"]), "", 0, 0, 0, 0.0, 0.0, _number(each["open_for"])))
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def rows(
    before: Sequence[Account], after: Sequence[Account], seconds: float, methods: bool, all: bool, sort: str
) -> list[Row]:
    """Return what happened in the ``seconds`` between two looks; without ``all``, only where something did.

    ``methods`` gives each method a row; otherwise each plugin has one.
    """
    old = {(each.plugin, each.method): each for each in before}
    grouped: dict[tuple[str, str], list[Account]] = {}
    for each in after:
        grouped.setdefault((each.plugin, each.method if methods else ""), []).append(each)
    found = [_row(plugin, method, old, group, seconds) for (plugin, method), group in grouped.items()]
    shown = [row for row in found if all or row.rate or row.running or row.errors or row.open_for]
    return sorted(shown, key=lambda row: _order(row, sort))


def _row(
    plugin: str, method: str, old: Mapping[tuple[str, str], Account], group: Sequence[Account], seconds: float
) -> Row:
    past = [old[key] for each in group if (key := (each.plugin, each.method)) in old]
    calls = sum(each.calls for each in group) - sum(each.calls for each in past)
    spent = sum(each.seconds for each in group) - sum(each.seconds for each in past)
    failures = sum(each.failures for each in group) - sum(each.failures for each in past)
    running = sum(each.running for each in group)
    ended = calls + sum(each.running for each in past) - running
    return Row(
        plugin,
        method,
        max(calls, 0) / seconds,
        1000 * max(spent, 0.0) / ended if ended > 0 else 0.0,
        1000 * max(each.longest for each in group),
        running,
        max(failures, 0),
        sum(each.calls for each in group),
        max(each.open_for for each in group),
    )


def _order(row: Row, sort: str) -> tuple[float, str, str]:
    values = {"calls": row.rate, "time": row.rate * row.milliseconds, "errors": float(row.errors)}
    return -values.get(sort, 0.0), row.plugin, row.method
