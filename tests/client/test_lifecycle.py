"""What a container is asked to be, what state it is in, and which options change what in its spec."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from windlass.contracts.containers import Container
from windlass.contracts.tasks import Exit
from windlass.errors import InvalidArgument
from windlass_api.containerd.services.containers.v1 import containers_pb2
from windlass_api.containerd.v1.types import task_pb2
from windlass_client import detachkeys, labels
from windlass_client.compose import identity
from windlass_client.containers import EXIT_STATUS
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import asked, removal, restarts, states, tasks
from windlass_client.lifecycle.asked import Asked, StopOptions
from windlass_client.lifecycle.health import Watch
from windlass_client.lifecycle.healthcheck import HealthCheck
from windlass_client.lifecycle.states import FINISHED, State
from windlass_client.lifecycle.stopping import signal_number, stop_signal
from windlass_client.listings import filtering
from windlass_client.listings.containers import Seen
from windlass_client.logs.keeping import LogOptions
from windlass_client.specparts import SpecParts
from windlass_images import platforms
from windlass_images.manifests import ImageConfig
from windlass_local import fifos
from windlass_oci.defaults import default_spec
from windlass_oci.process import image_labels


def test_what_was_asked_is_in_the_labels() -> None:
    wanted = Asked(
        "box",
        "web",
        stdin="once",
        log=LogOptions(max_files=3),
        restart="on-failure:3",
        stop=StopOptions("SIGINT", 3.0),
        health=HealthCheck(("true",), interval=1.5),
    )
    assert asked.of(Container("box", labels=wanted.labels())) == wanted
    assert asked.of(Container("other")) == Asked("other", "other")


def test_labels_that_another_client_changed_are_said() -> None:
    with pytest.raises(InvalidArgument, match="labels of windlass that were changed"):
        asked.of(Container("box", labels={"io.windlass.log": "[]"}))


def test_an_image_does_not_say_what_its_containers_were_asked_to_be() -> None:
    """Its labels would name a container like another, remove it with its volumes, or put it into a project."""
    ours = [*(value for name, value in vars(labels).items() if name.isupper()), asked.STDIN, asked.LOG_URI]
    names = [*ours, EXIT_STATUS, FINISHED, identity.PROJECT, identity.ONE_OFF]
    image = ImageConfig(platforms.host(), (), labels={**dict.fromkeys(names, "true"), "maintainer": "ann"})
    assert image_labels(image) == {"maintainer": "ann"}


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure", "on-failure:5"])
def test_a_policy_is_the_monitors(policy: str) -> None:
    labels = restarts.started(restarts.check(policy), "binary:///x")
    assert labels == {restarts.STATUS: "running", restarts.POLICY: policy, restarts.LOG_URI: "binary:///x"}


@pytest.mark.parametrize("policy", ["sometimes", "always:3", "on-failure:x"])
def test_a_policy_that_is_not_known(policy: str) -> None:
    assert restarts.started(restarts.check("no"), "x") == {}
    with pytest.raises(InvalidArgument, match="restart policy"):
        restarts.check(policy)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State("created"), "Created"),
        (State("running", 7, started=995.0), "Up 5 seconds"),
        (State("running", 7, started=995.0, health="healthy"), "Up 5 seconds (healthy)"),
        (State("running", 7, started=995.0, health="starting"), "Up 5 seconds (health: starting)"),
        (State("paused", 7, started=995.0), "Up 5 seconds (Paused)"),
        (State("exited", exit_code=3, finished=880.0), "Exited (3) 2 minutes ago"),
        (State("restarting", exit_code=1, finished=999.0), "Restarting (1) 1 second ago"),
    ],
)
def test_a_state_is_said_as_docker_says_it(state: State, text: str) -> None:
    assert state.status(1000.0) == text


def test_a_container_that_the_machine_took_with_it_has_exited(tmp_path: Path) -> None:
    data, record = DataDirectory(tmp_path), containers_pb2.Container(id="box")
    assert states.of(record, None, data).word == "created"
    data.container("box").mkdir(parents=True)
    (data.container("box") / "lock").touch()
    assert states.of(record, None, data) == State("exited", exit_code=states.LOST)


def test_a_container_that_comes_back_is_restarting(tmp_path: Path) -> None:
    record = containers_pb2.Container(id="box", labels=dict(restarts.started("on-failure:2", "x")))
    ended = task_pb2.Process(id="box", status=task_pb2.STOPPED, exit_status=1)
    assert states.of(record, ended, DataDirectory(tmp_path)).word == "restarting"
    record.labels[restarts.COUNT] = "2"
    assert states.of(record, ended, DataDirectory(tmp_path)).word == "exited"


def test_what_runs_beside_a_container_finds_the_daemon_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is the container's: the socket that a user names from his own is not there, nor are modules."""
    monkeypatch.chdir(tmp_path)
    client: Any = SimpleNamespace(connection=SimpleNamespace(address="d.sock"), namespace="default")
    command = tasks._companions(client, Asked("box", "box", remove=True)).afterwards
    assert command[1:] == ("-P", "-m", removal.__name__, f"unix:{tmp_path}/d.sock", "default", "box")


class Checks:
    """Tasks whose process writes much, as far as a health check sees them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.writing: asyncio.Future[int] = asyncio.Future()

    async def start(self, id: str, exec_id: str) -> None:
        self.writing.set_result(await asyncio.to_thread(Path(self.path).write_bytes, b"x" * 400_000))

    async def wait(self, id: str, exec_id: str) -> Exit:
        await self.writing
        return Exit(1, 0, 0)


async def test_a_health_check_that_writes_much_is_not_held_up(tmp_path: Path) -> None:
    container, check = Container("box"), HealthCheck(("true",), timeout=5.0)
    with fifos.make("health", stdin=False, terminal=False, parent=str(tmp_path)) as streams:
        namespace: Any = SimpleNamespace(tasks=Checks(streams.stdout))
        end = asyncio.ensure_future(asyncio.to_thread(Path(streams.stderr).write_bytes, b""))
        watch = Watch(namespace, namespace, DataDirectory(tmp_path), container, check, 1)
        code, output = await watch._finish("health", streams)
        await end
    assert (code, len(output)) == (0, 4096)


def test_detach_keys() -> None:
    found: list[bool] = []
    watcher = detachkeys.Watcher(detachkeys.parse(""), lambda: found.append(True))
    assert watcher(b"ls\x10") == b"ls"
    assert watcher(b"x\x10\x10\x11more") == b"\x10x\x10"
    assert found == [True]
    assert detachkeys.parse("a,ctrl-[,ctrl-z") == b"a\x1b\x1a"
    for wrong in ("ctrl-", "ctrl-1", "ab", "ä"):
        with pytest.raises(InvalidArgument, match="detach keys"):
            detachkeys.parse(wrong)


@pytest.mark.parametrize(("name", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37)])
def test_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize("name", ["", "FOO", "0", "99", "RTMIN+40", "RTMIN+-40", "TERM+x"])
def test_an_image_with_a_stop_signal_that_does_not_exist_can_be_stopped(name: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a signal of Linux"):
        signal_number(name)
    labels = {"io.containerd.image.config.stop-signal": name}
    assert stop_signal(asked.of(Container("box", labels=labels))) == 15


def test_filters() -> None:
    record = containers_pb2.Container(id="abc", image="docker.io/library/busybox:latest", labels={"a": "1", "b": "2"})
    each = Seen(record, None, State("exited", exit_code=3))
    for texts, matches in (
        (["status=exited"], True),
        (["status=running", "status=exited"], True),
        (["exited=3", "name=b"], True),
        (["exited=0"], False),
        (["label=a", "label=b=2"], True),
        (["label=a=2"], False),
        (["ancestor=busybox"], True),
        (["id=ab", "health=none"], True),
    ):
        assert filtering.parse(texts).accepts(each) is matches, texts
    for wrong in ("status=odd", "colour=red", "name", "exited=x"):
        with pytest.raises(InvalidArgument):
            filtering.parse([wrong])


def test_parts_of_a_spec(tmp_path: Path) -> None:
    spec = default_spec("ns", "box")
    SpecParts(
        ulimits=("nofile=10:20", "core=-1"),
        sysctls=("net.core.somaxconn=9",),
        shm_size=1 << 20,
        devices=("/dev/null:/dev/zilch:r",),
        domainname="d",
    ).apply(spec)
    limits = {each["type"]: (each["soft"], each["hard"]) for each in spec["process"]["rlimits"]}
    assert limits == {"RLIMIT_NOFILE": (10, 20), "RLIMIT_CORE": ((1 << 64) - 1, (1 << 64) - 1)}
    assert spec["linux"]["sysctl"] == {"net.core.somaxconn": "9"}
    assert [each["path"] for each in spec["linux"]["devices"]] == ["/dev/zilch"]
    assert spec["linux"]["resources"]["devices"][-1]["access"] == "r"
    assert any("size=1048576" in (each.get("options") or []) for each in spec["mounts"])


@pytest.mark.parametrize(
    "parts",
    [
        SpecParts(ulimits=("files=1",)),
        SpecParts(ulimits=("nofile=3:2",)),
        SpecParts(sysctls=("x",)),
        SpecParts(devices=("null",)),
        SpecParts(devices=("/dev/null:x",)),
    ],
)
def test_an_option_that_is_wrong(parts: SpecParts) -> None:
    with pytest.raises(InvalidArgument):
        parts.apply(default_spec("ns", "box"))
