"""What the calls at each plugin's gate have cost so far, as JSON: what `windlass plugins top` shows.

A client asks for it as `PluginInfo` of this service with empty options of type `TYPE`, which the answer has too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from windlass.gate import Gate

TYPE = "io.windlass.gates.v1"
NANOSECONDS = 1e9


def report(gates: Mapping[str, Gate]) -> bytes:
    """Return a list with an object for each plugin: its breaker, its threads, and its methods since the start."""
    return json.dumps([_plugin(uri, gate) for uri, gate in sorted(gates.items())]).encode()


def _plugin(uri: str, gate: Gate) -> dict[str, object]:
    methods = [
        {
            "method": each.method,
            "calls": each.calls,
            "failures": each.failures,
            "running": each.running,
            "seconds": each.total / NANOSECONDS,
            "longest": each.longest / NANOSECONDS,
        }
        for each in tuple(gate.accounts.values())
    ]
    return {"plugin": uri, "open_for": gate.breaker.left, "threads": len(gate.pool.threads), "methods": methods}
