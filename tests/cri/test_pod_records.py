"""IDs, names, files and events of pods, and the records that a daemon finds again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.values import Payload
from windlass.errors import DataLoss, FailedPrecondition, NotFound, ResourceExhausted, Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri import events as module
from windlass_cri.events import Events
from windlass_cri.ids import Index, Names, pod_name
from windlass_cri.pods.files import resolv_conf
from windlass_cri.pods.pods import namespaces
from windlass_cri.record import POD_DATA, Pod, PodData, pod_of

POD = Pod("a" * 64, cri.PodSandboxConfig(hostname="web"), PodData("n_ns_u_0", "runc", "/run/x", ("10.0.0.1",), 5))


def test_an_id_may_be_cut_short_while_it_is_one() -> None:
    index: Index[str] = Index("sandbox")
    for id in ("abc1", "abc2", "def"):
        index.add(id, id.upper())
    assert index.get("d") == "DEF" and "def" in index and "de" not in index and len(index) == 3
    with pytest.raises(Unknown, match="the beginning of 2 IDs"):
        index.get("abc")
    with pytest.raises(Unknown, match="prefix can't be empty"):
        index.find("")
    with pytest.raises(NotFound):
        index.get("x")
    assert index.find("x") is None
    index.remove("abc1")
    assert index.get("abc") == "ABC2" and list(index) == ["ABC2", "DEF"]


def test_a_name_is_taken_once_and_given_back_by_its_owner() -> None:
    names = Names("sandbox")
    names.take("a", "1")
    names.take("a", "1")
    names.give_back("a", "2")
    with pytest.raises(FailedPrecondition, match='failed to reserve sandbox name "a": name "a" is reserved for "1"'):
        names.take("a", "2")
    names.give_back("a", "1")
    names.take("a", "2")


def test_a_name_has_all_parts_also_empty_ones() -> None:
    assert pod_name(cri.PodSandboxMetadata()) == "___0"
    assert pod_name(cri.PodSandboxMetadata(name="n", namespace="s", uid="u", attempt=3)) == "n_s_u_3"


def test_a_record_is_read_as_it_was_written() -> None:
    record = POD.to_sandbox("io.containerd.runc.v2", "windlass", Payload("t", b"o"))
    assert record.runtime_options == Payload("t", b"o") and record.sandboxer == "windlass"
    found = pod_of(record)
    assert found is not None and (found.id, found.config, found.data) == (POD.id, POD.config, POD.data)
    assert not found.ready


def test_a_record_of_others_is_none_and_a_damaged_one_is_named() -> None:
    assert pod_of(Sandbox("other")) is None
    record = POD.to_sandbox("r", "windlass")
    for damage in (b"", b"[]", b'{"name": 1}', b'{"addresses": 5, "name": ""}'):
        broken = replace(record, extensions={**record.extensions, POD_DATA: Payload("j", damage)})
        with pytest.raises(DataLoss, match=f"the record of pod {POD.id} is damaged"):
            pod_of(broken)


def test_resolv_conf_has_no_empty_lines() -> None:
    assert resolv_conf(cri.DNSConfig()) == ""
    assert resolv_conf(cri.DNSConfig(options=["ndots:2", "debug"])) == "options ndots:2 debug\n"


async def test_every_subscriber_gets_every_event_a_late_one_too() -> None:
    events = Events()
    events.pod(POD, cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT)
    first, second = events.subscribe(), events.subscribe()
    kinds = [(await anext(first)).container_event_type for _ in range(2)]
    assert kinds == [cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT]
    waiting = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    events.pod(POD, cri.CONTAINER_STOPPED_EVENT)
    assert (await waiting).container_event_type == cri.CONTAINER_STOPPED_EVENT
    assert [(await anext(second)).container_id for _ in range(3)] == [POD.id] * 3


async def test_old_events_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events()
    events.pod(POD, cri.CONTAINER_CREATED_EVENT)
    monkeypatch.setattr(module, "KEPT", -1.0)
    events.pod(POD, cri.CONTAINER_STARTED_EVENT)
    assert (await anext(events.subscribe())).container_event_type == cri.CONTAINER_STARTED_EVENT


async def test_a_subscriber_that_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    events = Events()
    stream = events.subscribe()
    events.pod(POD, cri.CONTAINER_CREATED_EVENT)
    await anext(stream)
    events.pod(POD, *[cri.CONTAINER_STARTED_EVENT] * 5)
    with pytest.raises(ResourceExhausted, match="3 events behind"):
        await anext(stream)


def test_a_pods_network_is_its_own_whatever_process_a_shim_names() -> None:
    """A shim that makes no namespaces is in the host's network."""
    assert namespaces({}, 7) == {kind: f"/proc/7/ns/{kind}" for kind in ("net", "ipc", "uts", "pid")}
    assert namespaces({}, 7, "/run/netns/pod")["net"] == "/run/netns/pod"
    assert namespaces({"net": "/its/own"}, 7, "/run/netns/pod") == {"net": "/its/own"}
    assert namespaces({}, 0, "/run/netns/pod") == {}
