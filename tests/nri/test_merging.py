"""What merging promises: NRI's rules of conflict and ownership, and that later plugins see what earlier ones did.

Beyond these cases the rules were compared with NRI's own, tens of thousands of random answers; docs/nri.md has the
differences that are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from windlass.errors import InvalidArgument
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Contribution, Merged, Merger, StopMerger, UpdateMerger, merge
from windlass_nri.owners import Conflict

Change = Callable[[nri.ContainerAdjustment], object]


def answer(*changes: Change) -> nri.CreateContainerResponse:
    response = nri.CreateContainerResponse()
    for change in changes:
        change(response.adjust)
    return response


def merged(container: nri.Container, *answers: nri.CreateContainerResponse) -> Merged:
    names = ("10-a", "20-b", "30-c")
    return merge(container, [Contribution(*each) for each in zip(names, answers, strict=False)])


def simple(result: Merged, field: nri.Field.ValueType, container: str = "box") -> str:
    return result.owners.owners[container].simple.get(field, "")


def compound(result: Merged, field: nri.Field.ValueType, container: str = "box") -> Mapping[str, str]:
    owners = result.owners.owners[container].compound
    return dict(owners[field].owners) if field in owners else {}


def box() -> nri.Container:
    container = nri.Container(id="box", env=["A=0", "B=0"], args=["sh"], annotations={"a": "0", "b": "0"})
    container.mounts.add(destination="/a", source="/old")
    container.linux.devices.add(path="/dev/a", type="c")
    container.linux.namespaces.add(type="pid")
    container.linux.namespaces.add(type="mount")
    container.linux.sysctl["a"] = "0"
    container.linux.net_devices["eth1"].name = "e"
    return container


def env(key: str, value: str = "") -> Change:
    return lambda adjust: adjust.env.add(key=key, value=value)


def mount(destination: str, source: str = "") -> Change:
    return lambda adjust: adjust.mounts.add(destination=destination, source=source)


def device(path: str) -> Change:
    return lambda adjust: adjust.linux.devices.add(path=path, type="c")


def strings(field: str, key: str, value: str = "") -> Change:
    def change(adjust: nri.ContainerAdjustment) -> None:
        target = adjust.annotations if field == "annotations" else adjust.linux.sysctl
        target[key] = value

    return change


def net_device(key: str) -> Change:
    return lambda adjust: adjust.linux.net_devices.get_or_create(key)


def namespace(type: str, path: str = "") -> Change:
    return lambda adjust: adjust.linux.namespaces.add(type=type, path=path)


def args(*values: str) -> Change:
    return lambda adjust: adjust.args.extend(values)


def hook(path: str) -> Change:
    return lambda adjust: adjust.hooks.prestart.add(path=path)


def set_message(path: str, **values: object) -> Change:
    """Set a message below the adjustment, such as ``linux.resources.cpu.shares``, by its fields."""

    def change(adjust: nri.ContainerAdjustment) -> None:
        message: nri.ContainerAdjustment = adjust
        for name in path.split("."):
            message = getattr(message, name)
        message.SetInParent()
        for name, value in values.items():
            setattr(message, name, value)

    return change


SIMPLE = [
    *((f"linux.resources.memory.{name}", {"value": 1}, field) for name, field in {
        "limit": nri.MemLimit, "reservation": nri.MemReservation, "swap": nri.MemSwapLimit,
        "kernel": nri.MemKernelLimit, "kernel_tcp": nri.MemTCPLimit, "swappiness": nri.MemSwappiness,
        "disable_oom_killer": nri.MemDisableOomKiller, "use_hierarchy": nri.MemUseHierarchy,
    }.items()),
    *((f"linux.resources.cpu.{name}", {"value": 1}, field) for name, field in {
        "shares": nri.CPUShares, "quota": nri.CPUQuota, "period": nri.CPUPeriod,
        "realtime_runtime": nri.CPURealtimeRuntime, "realtime_period": nri.CPURealtimePeriod,
    }.items()),
    ("linux.resources.cpu", {"cpus": "0-1"}, nri.CPUSetCPUs),
    ("linux.resources.cpu", {"mems": "0"}, nri.CPUSetMems),
    ("linux.resources.blockio_class", {"value": ""}, nri.BlockioClass),
    ("linux.resources.rdt_class", {"value": "gold"}, nri.RdtClass),
    ("linux.resources.pids", {"limit": 5}, nri.PidsLimit),
    ("linux", {"cgroups_path": "/x"}, nri.CgroupsPath),
    ("linux.oom_score_adj", {"value": 0}, nri.OomScoreAdj),
    ("linux.io_priority", {"priority": 3}, nri.IoPriority),
    ("linux.seccomp_policy", {"default_action": "SCMP_ACT_ALLOW"}, nri.SeccompPolicy),
    ("linux.scheduler", {"policy": nri.SCHED_BATCH}, nri.LinuxSched),
    ("linux.memory_policy", {"mode": nri.MPOL_BIND}, nri.MemoryPolicy),
    ("linux.rdt.clos_id", {"value": "gold"}, nri.RdtClosID),
    ("linux.rdt.schemata", {}, nri.RdtSchemata),
    ("linux.rdt.enable_monitoring", {"value": True}, nri.RdtEnableMonitoring),
]  # fmt: skip

COMPOUND: list[tuple[Change, nri.Field.ValueType, str]] = [
    (strings("annotations", "x", "1"), nri.Annotations, "x"),
    (mount("/x", "/s"), nri.Mounts, "/x"),
    (env("X", "1"), nri.Env, "X"),
    (device("/dev/x"), nri.Devices, "/dev/x"),
    (namespace("ipc"), nri.Namespace, "ipc"),
    (strings("sysctl", "x", "1"), nri.Sysctl, "x"),
    (net_device("eth9"), nri.LinuxNetDevices, "eth9"),
    (lambda adjust: adjust.CDI_devices.add(name="v/c=d"), nri.CdiDevices, "v/c=d"),
    (lambda adjust: adjust.rlimits.add(type="RLIMIT_NOFILE", hard=5), nri.Rlimits, "RLIMIT_NOFILE"),
    (lambda adjust: adjust.linux.resources.hugepage_limits.add(page_size="2MB"), nri.HugepageLimits, "2MB"),
    (lambda adjust: adjust.linux.resources.unified.update({"memory.high": "1"}), nri.CgroupsUnified, "memory.high"),
]


# Conflicts and owners, for every field


@pytest.mark.parametrize(("path", "values", "field"), SIMPLE)
def test_a_simple_field_has_one_owner(path: str, values: dict[str, object], field: nri.Field.ValueType) -> None:
    """It arrives as it was set; a second plugin that sets it is refused, with both names and the field."""
    change = set_message(path, **values)
    result = merged(box(), answer(change), answer(env("OTHER", "1")))
    assert result.adjustment.linux == answer(change).adjust.linux
    assert simple(result, field) == "10-a"
    message = f'^plugins "20-b" and "10-a" both tried to set {nri.Field.Name(field)}$'
    with pytest.raises(Conflict, match=message) as caught:
        merged(box(), answer(change), answer(change))
    assert (caught.value.plugin, caught.value.owner, caught.value.key) == ("20-b", "10-a", None)


@pytest.mark.parametrize(("change", "field", "key"), COMPOUND)
def test_an_entry_has_one_owner(change: Change, field: nri.Field.ValueType, key: str) -> None:
    """It arrives as it was set; a second plugin that sets it is refused, with both names, the field and the entry."""
    result = merged(box(), answer(change))
    assert result.adjustment == answer(change).adjust
    assert compound(result, field) == {key: "10-a"}
    with pytest.raises(Conflict, match=r'^plugins "20-b" and "10-a" both tried to set') as caught:
        merged(box(), answer(change), answer(change))
    assert (caught.value.field, caught.value.key) == (nri.Field.Name(field), key)


def test_one_plugin_cannot_set_an_entry_twice() -> None:
    """NRI calls that a conflict of a plugin with itself."""
    with pytest.raises(Conflict, match='plugins "10-a" and "10-a" both tried to set Env X'):
        merged(box(), answer(env("X", "1"), env("X", "2")))


def test_every_field_of_an_adjustment_has_an_owner() -> None:
    """A field that NRI gets one day has to be merged here too."""
    known = {field for _, _, field in SIMPLE} | {field for _, field, _ in COMPOUND} | {nri.OciHooks, nri.Args}
    assert known == set(nri.Field.values()) - {getattr(nri, "None")}


# Removals


@pytest.mark.parametrize(
    ("remove", "replace", "field", "key"),
    [
        (env("-A"), env("A", "2"), nri.Env, "A"),
        (mount("-/a"), mount("/a", "/new"), nri.Mounts, "/a"),
        (device("-/dev/a"), device("/dev/a"), nri.Devices, "/dev/a"),
        (strings("annotations", "-a"), strings("annotations", "a", "2"), nri.Annotations, "a"),
        (strings("sysctl", "-a"), strings("sysctl", "a", "2"), nri.Sysctl, "a"),
        (net_device("-eth1"), net_device("eth1"), nri.LinuxNetDevices, "eth1"),
    ],
)
def test_who_removes_may_replace(remove: Change, replace: Change, field: nri.Field.ValueType, key: str) -> None:
    """A plugin replaces what another has set by removing it first; a third one then cannot."""
    result = merged(box(), answer(replace), answer(remove, replace))
    assert compound(result, field) == {key: "20-b"}
    with pytest.raises(Conflict, match='"30-c" and "20-b"'):
        merged(box(), answer(replace), answer(remove, replace), answer(replace))
    with pytest.raises(Conflict, match='"30-c" and "20-b"'):
        merged(box(), answer(replace), answer(remove), answer(replace))


@pytest.mark.parametrize(
    ("remove", "names"),
    [
        (env("-A"), lambda adjust: [each.key for each in adjust.env]),
        (mount("-/a"), lambda adjust: [each.destination for each in adjust.mounts]),
        (device("-/dev/a"), lambda adjust: [each.path for each in adjust.linux.devices]),
        (strings("annotations", "-a"), lambda adjust: list(adjust.annotations)),
        (strings("sysctl", "-a"), lambda adjust: list(adjust.linux.sysctl)),
        (net_device("-eth1"), lambda adjust: list(adjust.linux.net_devices)),
    ],
)
def test_a_removal_reaches_the_spec(remove: Change, names: Callable[[nri.ContainerAdjustment], list[str]]) -> None:
    """It stays as a mark, so that what the container has of itself goes; the next plugin does not see that any more."""
    merger = Merger(box())
    merger.add(Contribution("10-a", answer(remove)))
    [mark] = names(merger.merged().adjustment)
    assert mark == names(answer(remove).adjust)[0]
    merger.add(Contribution("20-b", answer(remove)))
    assert mark[1:] not in shown_to_the_next(merger.container, mark)


def shown_to_the_next(container: nri.Container, mark: str) -> list[str]:
    """Return the names of what a container has of the kind that a mark of the test above is of."""
    linux = container.linux
    if mark == "-A":
        return [each.partition("=")[0] for each in container.env]
    if mark == "-a":
        return sorted({*container.annotations} & {*linux.sysctl})  # one of them is removed
    return (
        [each.destination for each in container.mounts] + [each.path for each in linux.devices] + [*linux.net_devices]
    )


def test_arguments_are_replaced_by_who_clears_them() -> None:
    """An empty first argument is the mark."""
    result = merged(box(), answer(args("x")), answer(args("", "y", "z")))
    assert list(result.adjustment.args) == ["y", "z"]
    assert simple(result, nri.Args) == "20-b"
    with pytest.raises(Conflict, match="both tried to set Args"):
        merged(box(), answer(args("x")), answer(args("y")))


def test_namespaces_are_removed_once() -> None:
    """A removal owns the namespace like any setting."""
    merger = Merger(box())
    merger.add(Contribution("10-a", answer(namespace("-pid"), namespace("mount", "/ns"))))
    assert [(each.type, each.path) for each in merger.container.linux.namespaces] == [("mount", "/ns")]
    with pytest.raises(Conflict, match="Namespace pid"):
        merger.add(Contribution("20-b", answer(namespace("pid"))))


def test_rdt_is_removed_and_set_anew() -> None:
    """A removal clears what earlier plugins set; what is set afterwards counts."""
    clos, remove = set_message("linux.rdt.clos_id", value="x"), set_message("linux.rdt", remove=True)
    result = merged(box(), answer(clos), answer(remove))
    assert result.adjustment.linux.rdt == nri.LinuxRdt(remove=True)
    result = merged(box(), answer(clos), answer(remove, set_message("linux.rdt.enable_monitoring", value=True)))
    assert result.adjustment.linux.rdt == nri.LinuxRdt(enable_monitoring=nri.OptionalBool(value=True))
    with pytest.raises(Conflict, match="RdtClosID"):
        merged(box(), answer(clos), answer(remove), answer(clos))


def test_hooks_add_up() -> None:
    """All plugins may add, and all are their owners."""
    result = merged(box(), answer(hook("/x")), answer(hook("/y")))
    assert [each.path for each in result.adjustment.hooks.prestart] == ["/x", "/y"]
    assert simple(result, nri.OciHooks) == "10-a,20-b"


def test_later_plugins_see_what_earlier_ones_did() -> None:
    """The container as it is after each step; what was given stays as it was."""
    container, before = box(), box()
    merger = Merger(container)
    first = answer(env("A", "1"), mount("/a", "/new"), args("top"), hook("/h"), strings("annotations", "c", "1"))
    merger.add(Contribution("10-a", first))
    seen = merger.container
    assert list(seen.env) == ["B=0", "A=1"]
    assert [(each.destination, each.source) for each in seen.mounts] == [("/a", "/new")]
    assert (list(seen.args), seen.hooks.prestart[0].path, seen.annotations["c"]) == (["top"], "/h", "1")
    merger.add(Contribution("20-b", answer(set_message("linux.resources.cpu.shares", value=7))))
    assert merger.container.linux.resources.cpu.shares.value == 7
    assert container == before


# Updates of others


def update(id: str, shares: int | None = None, ignore: bool = False) -> nri.ContainerUpdate:
    made = nri.ContainerUpdate(container_id=id, ignore_failure=ignore)
    if shares is not None:
        made.linux.resources.cpu.shares.value = shares
    return made


def test_updates_of_others_are_merged() -> None:
    """One update for each container, owned field by field; evictions once for each."""
    one = nri.CreateContainerResponse(update=[update("x", 1)], evict=[nri.ContainerEviction(container_id="y")])
    two = nri.CreateContainerResponse(evict=[nri.ContainerEviction(container_id="y", reason="late")])
    two.update.add(container_id="x").linux.resources.memory.limit.value = 9
    result = merged(box(), one, two)
    [both] = result.updates
    assert (both.linux.resources.cpu.shares.value, both.linux.resources.memory.limit.value) == (1, 9)
    assert [(each.container_id, each.reason) for each in result.evictions] == [("y", "")]
    assert simple(result, nri.CPUShares, "x") == "10-a"
    with pytest.raises(Conflict, match="CPUShares"):
        merged(box(), one, nri.CreateContainerResponse(update=[update("x", 2)]))


def test_a_failure_that_may_be_ignored_changes_nothing() -> None:
    """An update that conflicts and says so is left out; the update counts as ignorable only if all say so."""
    result = merged(
        box(),
        nri.CreateContainerResponse(update=[update("x", 1, ignore=True)]),
        nri.CreateContainerResponse(update=[update("x", 2, ignore=True)]),
    )
    assert [(each.linux.resources.cpu.shares.value, each.ignore_failure) for each in result.updates] == [(1, True)]


def test_the_container_itself_is_adjusted_and_not_updated() -> None:
    """A plugin that confuses the two gets told."""
    with pytest.raises(InvalidArgument, match='plugin "10-a" asked update of "box" during creation'):
        merged(box(), nri.CreateContainerResponse(update=[update("box", 1)]))


def test_an_update_that_a_client_asked_for_is_changed_by_plugins() -> None:
    """Each plugin sees what those before it made of it; other containers are apart."""
    asked = nri.LinuxResources()
    asked.cpu.shares.value, asked.cpu.quota.value = 100, 5
    merger = UpdateMerger("box", asked)
    merger.add("10-a", nri.UpdateContainerResponse(update=[update("box", 200), update("x", 1)]))
    assert merger.resources.cpu.shares.value == 200
    second = nri.UpdateContainerResponse(evict=[nri.ContainerEviction(container_id="y")])
    second.update.add(container_id="box").linux.resources.pids.limit = 9
    merger.add("20-b", second)
    result = merger.merged()
    assert result.requested is not None
    cpu = result.requested.cpu
    assert (cpu.shares.value, cpu.quota.value, result.requested.pids.limit) == (200, 5, 9)
    assert [each.container_id for each in result.updates] == ["x"]
    assert [each.container_id for each in result.evictions] == ["y"]
    assert asked.cpu.shares.value == 100
    with pytest.raises(Conflict, match="CPUShares"):
        merger.add("30-c", nri.UpdateContainerResponse(update=[update("box", 300)]))


def test_an_update_that_no_plugin_changes_stays_the_clients() -> None:
    """Then there is nothing to set but what was asked for."""
    merger = UpdateMerger("box", nri.LinuxResources())
    merger.add("10-a", nri.UpdateContainerResponse(update=[update("box")]))
    assert merger.merged().requested is None


def test_a_stop_updates_others() -> None:
    """What a container leaves goes to others."""
    merger = StopMerger()
    merger.add("10-a", nri.StopContainerResponse(update=[update("x", 1)]))
    merger.add("20-b", nri.StopContainerResponse(update=[update("y", 2)]))
    assert [each.container_id for each in merger.merged().updates] == ["x", "y"]
    with pytest.raises(Conflict):
        merger.add("30-c", nri.StopContainerResponse(update=[update("x", 3)]))


def test_an_answer_to_another_request_is_refused() -> None:
    """Its fields would be taken for others."""
    with pytest.raises(InvalidArgument, match="answered with UpdateContainerResponse, not StopContainerResponse"):
        StopMerger().add("10-a", nri.UpdateContainerResponse())  # type: ignore[arg-type] # which is the point
