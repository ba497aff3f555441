"""`windlass plugins top`: what happened between two looks at a daemon's gates."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.contracts.rpc import Call
from windlass.errors import DeadlineExceeded, NotFound, Unimplemented
from windlass.gate import Gate, Handle, offloaded
from windlass.plugin import Record, State
from windlass_api.containerd.services.introspection.v1 import introspection_pb2 as pb
from windlass_client import plugintop
from windlass_services import gatereport
from windlass_services.introspection import Introspection


class Store:
    """A plugin."""

    def put(self, name: str) -> None:
        if not name:
            raise NotFound("nothing has no name")


def gates() -> dict[str, Gate]:
    return {uri: Gate(uri) for uri in ("io.example.v1.busy", "io.example.v1.idle")}


def looked(found: dict[str, Gate]) -> list[plugintop.Account]:
    return plugintop.accounts(json.loads(gatereport.report(found)))


def test_calls_and_errors_of_an_interval() -> None:
    """What was before the first look does not count; idle plugins are left out unless they are asked for."""
    found = gates()
    store = Handle(Store(), found["io.example.v1.busy"])
    store.put("before")  # type: ignore[operator] # a handle's method
    before = looked(found)
    for name in ("a", "b", "c", ""):
        try:
            store.put(name)  # type: ignore[operator] # a handle's method
        except NotFound:
            continue
    (row,) = plugintop.rows(before, looked(found), 2.0, False, False, "time")
    assert (row.plugin, row.rate, row.errors, row.total, row.running) == ("io.example.v1.busy", 2.0, 1, 5, 0)
    assert row.milliseconds > 0 and row.to_json(False)["breaker"] == "closed"
    every = plugintop.rows(before, looked(found), 2.0, False, True, "name")
    assert [each.plugin for each in every] == ["io.example.v1.busy", "io.example.v1.idle"]
    (one,) = plugintop.rows(before, looked(found), 2.0, True, False, "time")
    assert one.to_json(True)["method"] == "put"


def test_an_open_breaker_is_shown() -> None:
    """A plugin that misses its deadlines is refused for a while, and the table says for how long."""
    found = gates()
    gate = found["io.example.v1.busy"]

    async def miss() -> None:
        for _ in range(5):
            with pytest.raises(DeadlineExceeded):
                await offloaded(gate.guard(lambda: time.sleep(0.05), "sleep"), deadline=0.001)()

    asyncio.run(miss())
    gate.close()
    (row,) = plugintop.rows([], looked(found), 1.0, False, False, "errors")
    assert row.open_for > 0 and str(row.to_json(False)["breaker"]).startswith("open, ")


def test_the_daemon_answers_by_introspection(tmp_path: Path) -> None:
    """PluginInfo of the service itself has the report; options that it does not know are refused."""
    record = Record("io.containerd.grpc.v1.introspection", "io.containerd.grpc.v1", "introspection", State.OK)
    service = Introspection(lambda: (record,), tmp_path / "uuid", {}, gates)
    request = pb.PluginInfoRequest(type=record.type, id=record.id, options=AnyMessage(type_url=gatereport.TYPE))
    answer = asyncio.run(service.plugin_info(request, Call()))
    assert [each["plugin"] for each in json.loads(answer.extra.value)] == sorted(gates())
    request.options.type_url = "other"
    with pytest.raises(Unimplemented):
        asyncio.run(service.plugin_info(request, Call()))


def test_client_and_daemon_agree_on_the_name() -> None:
    """No plugin and no client imports the other."""
    assert plugintop.TYPE == gatereport.TYPE
