"""Up and down: what is made, kept, made anew and removed, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from client.compose_engine import MemoryEngine

from windlass.errors import FailedPrecondition, NotFound
from windlass_client.compose import down, shared
from windlass_client.compose.engine import Line, Member
from windlass_client.compose.files import Sources
from windlass_client.compose.following import Printer, Style, Wish, follow
from windlass_client.compose.load import load
from windlass_client.compose.model import Project
from windlass_client.compose.order import with_dependencies
from windlass_client.compose.up import Up, UpOptions

FILE = """
name: p
services:
  web: {image: i, depends_on: {db: {condition: service_healthy}}, volumes: ["data:/data"]}
  db: {image: i, healthcheck: {test: "true"}}
volumes: {data: }
"""
HEALTHY = Member("", "", {}, "running", health="healthy")


@pytest.fixture
def engine() -> MemoryEngine:
    engine = MemoryEngine("i")
    engine.on_start["db"] = HEALTHY
    return engine


class Case:
    def __init__(self, engine: MemoryEngine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self.reported: list[str] = []

    def project(self, text: str = FILE) -> Project:
        path = self.directory / "compose.yaml"
        path.write_text(text)
        return load(Sources(self.directory, (path,), {})).project

    async def up(self, text: str = FILE, *names: str, options: UpOptions | None = None) -> list[str]:
        """Bring a project up, and return what was done for that."""
        self.engine.done.clear()
        project = self.project(text)
        await Up(self.engine, project, self.report, options).bring(with_dependencies(project.services, names))
        return list(self.engine.done)

    async def down(self, text: str = FILE, volumes: bool = False) -> list[str]:
        self.engine.done.clear()
        project = self.project(text)
        members = await self.engine.members(project.name)
        await down.take_down(self.engine, members, project.services, None, volumes, self.report)
        await shared.remove(self.engine, project.name, volumes, self.report)
        return list(self.engine.done)

    def report(self, kind: str, name: str, what: str) -> None:
        self.reported.append(f"{kind} {name} {what}")


@pytest.fixture
def case(engine: MemoryEngine, tmp_path: Path) -> Case:
    return Case(engine, tmp_path)


async def test_up_makes_what_is_not_there_and_down_removes_it(case: Case) -> None:
    """In the order of dependencies, and back; a volume stays unless it is to go."""
    done = await case.up()
    assert done == ["create p-db-1", "create p-web-1", "start p-db-1", "start p-web-1"]
    web = case.engine.wanted[case.engine.named("p-web-1").id]
    assert (web.networks, web.volumes) == ({"p_default": ("web",)}, {"data": "p_data"})
    assert {key.rpartition(".")[2]: web.labels[key] for key in sorted(web.labels) if "hash" not in key} == {
        "container-number": "1",
        "depends_on": "db:service_healthy:false",
        "image": "sha256:i",
        "oneoff": "False",
        "project": "p",
        "config_files": str(case.directory / "compose.yaml"),
        "working_dir": str(case.directory),
        "service": "web",
        "version": "0.1.0",
    }
    assert await case.down() == [
        *("stop p-web-1", "stop p-db-1"),
        *("remove p-db-1", "remove p-web-1"),
    ]
    assert case.engine.shared["network"] == {} and list(case.engine.shared["volume"]) == ["p_data"]
    await case.down(volumes=True)
    assert case.engine.shared["volume"] == {}
    assert case.reported == [
        *("Network p_default Created", "Volume p_data Created"),
        *("Container p-db-1 Created", "Container p-web-1 Created"),
        *("Container p-db-1 Started", "Container p-web-1 Started"),
        *("Container p-web-1 Stopped", "Container p-db-1 Stopped"),
        *("Container p-db-1 Removed", "Container p-web-1 Removed"),
        *("Network p_default Removed", "Volume p_data Removed"),
    ]


async def test_up_again_touches_only_what_changed(case: Case) -> None:
    """A service that changed, one whose image changed; what only says when it starts makes nothing anew."""
    await case.up()
    assert await case.up() == []
    assert await case.up(FILE.replace("service_healthy", "service_started")) == []
    changed = FILE.replace('test: "true"', 'test: "false"')
    assert await case.up(changed) == ["stop p-db-1", "remove p-db-1", "create p-db-1", "start p-db-1"]
    case.engine.images["i"] = "sha256:new"
    assert await case.up(changed, "db") == ["stop p-db-1", "remove p-db-1", "create p-db-1", "start p-db-1"]
    case.engine.images["i"] = "sha256:i"
    assert await case.up(changed, "db", options=UpOptions(recreate="never")) == []
    assert "create p-web-1" in await case.up(changed, options=UpOptions(recreate="always"))


async def test_a_stopped_container_is_started_again(case: Case) -> None:
    """It is not made anew."""
    await case.up()
    case.engine.set(case.engine.named("p-web-1").id, state="exited")
    assert await case.up() == ["start p-web-1"]


async def test_a_service_has_as_many_containers_as_it_says(case: Case) -> None:
    """Those with low numbers stay; a gap is filled."""
    text = "name: p\nservices: {web: {image: i, scale: 3}}"
    assert (await case.up(text))[:3] == ["create p-web-1", "create p-web-2", "create p-web-3"]
    case.engine.kept.pop(case.engine.named("p-web-2").id)
    assert await case.up(text) == ["create p-web-2", "start p-web-2"]
    assert sorted(await case.up(text, options=UpOptions(scale={"web": 1}))) == [
        *("remove p-web-2", "remove p-web-3"),
        *("stop p-web-2", "stop p-web-3"),
    ]


@pytest.mark.parametrize(
    ("condition", "later", "problem"),
    [
        ("service_healthy", Member("", "", {}, "running", health="unhealthy"), "p-db-1 is unhealthy"),
        ("service_healthy", Member("", "", {}, "exited", exit_code=3), "p-db-1 has ended with 3"),
        ("service_healthy", Member("", "", {}, "running"), "p-db-1 has no health check; add healthcheck"),
        ("service_completed_successfully", Member("", "", {}, "exited", exit_code=1), "p-db-1 has ended with 1"),
        ("service_completed_successfully", Member("", "", {}, "exited"), ""),
        ("service_healthy", HEALTHY, ""),
    ],
)
async def test_a_service_waits_for_what_it_depends_on(case: Case, condition: str, later: Member, problem: str) -> None:
    """A condition that cannot come true any more is an error at once."""
    case.engine.on_start["db"] = later
    text = FILE.replace("service_healthy", condition)
    if not problem:
        assert (await case.up(text))[-1] == "start p-web-1"
        return
    with pytest.raises(FailedPrecondition, match=rf'service "web" waits for db, and {problem}'):
        await case.up(text)
    assert "start p-web-1" not in case.engine.done
    await case.up(text.replace(f"condition: {condition}", f"condition: {condition}, required: false"))


async def test_a_dependency_that_is_made_anew_restarts_what_asks_for_it(case: Case) -> None:
    """`restart: true` in depends_on; and the network of a container that is gone is nobody's any more."""
    text = """
name: p
services:
  a: {image: i}
  b: {image: i, depends_on: {a: {condition: service_started, restart: true}}}
  c: {image: i, network_mode: "service:a"}
"""
    await case.up(text)
    first = case.engine.named("p-a-1").id
    assert case.engine.wanted[case.engine.named("p-c-1").id].sharing == first
    done = await case.up(text.replace("a: {image: i}", "a: {image: i, user: '1'}"))
    assert done.index("start p-a-1") < done.index("stop p-b-1") < done.index("start p-b-1")
    assert done.index("create p-a-1") < done.index("create p-c-1")
    assert case.engine.wanted[case.engine.named("p-c-1").id].sharing == case.engine.named("p-a-1").id != first


async def test_images_are_pulled_when_they_are_missing(case: Case) -> None:
    """Or always, or never, as the policy says; one that is to be built is not pulled."""
    text = "name: p\nservices: {web: {image: new}}"
    with pytest.raises(NotFound, match="image new is in no registry"):
        await case.up(text)
    case.engine.registry["new"] = "sha256:new"
    with pytest.raises(NotFound, match='service "web": image new does not exist, and its pull policy is never'):
        await case.up(text, options=UpOptions(pull="never"))
    assert (await case.up(text))[0] == "pull new"
    assert "pull new" not in await case.up(text)
    assert (await case.up(text.replace("new}", "new, pull_policy: always}")))[0] == "pull new"
    with pytest.raises(FailedPrecondition, match=r'"web": image p-web is not built; `windlass build -t p-web /'):
        await case.up("name: p\nservices: {web: {build: .}}")


async def test_what_others_make_must_be_there(case: Case) -> None:
    """External networks and volumes are neither made nor removed."""
    text = "name: p\nservices: {web: {image: i, networks: [n]}}\nnetworks: {n: {external: true}}"
    with pytest.raises(NotFound, match='network "n" is external and does not exist; `windlass network create n`'):
        await case.up(text)
    case.engine.shared["network"]["n"] = {"com.docker.compose.project": "other"}
    await case.up(text)
    await case.down(text)
    assert list(case.engine.shared["network"]) == ["n"]


async def test_orphans_are_those_of_services_that_are_gone(case: Case) -> None:
    """A service whose profile is not active is not gone."""
    await case.up()
    members = await case.engine.members("p")
    project = case.project("name: p\nservices: {web: {image: i}}")
    assert [each.name for each in down.orphans(members, project)] == ["p-db-1"]
    project = case.project("name: p\nservices: {web: {image: i}, db: {image: i, profiles: [x]}}")
    assert down.orphans(members, project) == []


async def test_lines_have_the_names_of_their_containers(case: Case) -> None:
    """As wide as the longest, in colors, with times, or bare."""
    await case.up()
    case.engine.written = {
        "p-db-1": [Line("T1", "stdout", "one")],
        "p-web-1": [Line("T2", "stderr", "two")],
    }
    members: Sequence[Member] = sorted(await case.engine.members("p"), key=lambda each: each.name)
    out: list[str] = []
    await follow(case.engine, members, Printer(Style(color=False), "p", out.append), Wish())
    assert out == ["db-1   | one\n", "web-1  | two\n"]
    out.clear()
    await follow(case.engine, members, Printer(Style(timestamps=True), "p", out.append), Wish())
    assert out == ["\x1b[36mdb-1   | \x1b[0mT1 one\n", "\x1b[33mweb-1  | \x1b[0mT2 two\n"]
    out.clear()
    for each in members:
        case.engine.set(each.id, state="exited")
    members = await case.engine.members("p")
    await follow(case.engine, members, Printer(Style(prefix=False), "p", out.append), Wish(follow=True))
    assert sorted(out) == ["one\n", "two\n"]
