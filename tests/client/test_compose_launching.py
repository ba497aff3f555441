"""A service as the options of `windlass run`: commands, ports, mounts, health, and names in its networks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windlass_client.cli import Where
from windlass_client.compose import launching
from windlass_client.compose.engine import Wanted
from windlass_client.compose.model import Limits, Mount, Port, Service
from windlass_client.compose.values import Place
from windlass_client.launch import LaunchOptions
from windlass_client.lifecycle.healthcheck import HealthOptions
from windlass_client.volumes import options as mounts

SERVICE = Service("web", Place("compose.yaml", 1), image="nginx")


def launched(service: Service, sharing: str = "") -> LaunchOptions:
    wanted = Wanted("p-web-1", service, {"a": "b"}, {"p_back": ("web", "api")}, {"data": "p_data"}, sharing)
    return launching.launch_options(Where("/run/d.sock", "default"), wanted)


def test_what_is_asked_for_is_passed_on() -> None:
    """Name and labels of the container, its limits, and what is its process."""
    service = replace(
        SERVICE,
        entrypoint=("/entry", "first"),
        command=("second",),
        environment={"A": "1"},
        limits=Limits(1 << 20, 0.5, 10),
        ulimits={"nofile": "1:2"},
        restart="always",
        stop_grace_period=3,
    )
    options = launched(service)
    assert (options.name, options.labels, options.image) == ("p-web-1", {"a": "b"}, "nginx")
    assert (options.entrypoint, options.arguments, options.env) == ("/entry", ("first", "second"), ("A=1",))
    assert (options.memory, options.cpus, options.pids) == (1 << 20, 0.5, 10)
    assert (options.restart, options.stop.timeout, options.parts.ulimits) == ("always", 3, ("nofile=1:2",))
    assert launched(SERVICE).entrypoint is None and launched(SERVICE).restart == ""


def test_a_container_of_run_rm_is_removed_also_when_its_client_was_killed() -> None:
    """The program that keeps its log does it; a user who leaves it lets it run on."""
    wanted = Wanted("p-web-run-1", SERVICE, {}, {}, {}, remove=True)
    assert launching.launch_options(Where("/run/d.sock", "default"), wanted).remove
    assert not launched(SERVICE).remove


def test_names_are_those_of_one_network() -> None:
    """Each alias counts in its network only; a container that shares a network has none of its own."""
    network = launched(SERVICE).network
    assert network is not None
    assert network.networks == ("p_back",)
    assert list(network.network_aliases) == [("p_back", "web"), ("p_back", "api")]
    shared = launched(replace(SERVICE, ports=(Port(80),)), sharing="c1").network
    assert shared is not None
    assert (shared.networks, shared.publish) == (("container:c1",), ())


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (Port(80), "80/tcp"),
        (Port(80, "8080"), "8080:80/tcp"),
        (Port(53, "5353", "udp", "127.0.0.1"), "127.0.0.1:5353:53/udp"),
        (Port(80, "", "tcp", "::1"), "[::1]::80/tcp"),
        (Port(80, "8000-8010"), "8000-8010:80/tcp"),
    ],
)
def test_ports_are_published_as_by_run(port: Port, text: str) -> None:
    """As `-p` has them."""
    assert launching.published(port) == text


def test_mounts_have_the_names_outside_of_the_project() -> None:
    """Volumes of the file have the project's name before theirs; one without a name has none."""
    service = replace(
        SERVICE,
        mounts=(
            Mount("volume", "data", "/data"),
            Mount("volume", "", "/cache"),
            Mount("bind", "/host", "/host", read_only=True, propagation="rslave"),
            Mount("tmpfs", "", "/run", size=1024, mode=0o700),
        ),
    )
    volumes = launched(service).volumes
    assert volumes is not None
    assert volumes.wanted == [
        mounts.Wanted("volume", "p_data", "/data"),
        mounts.Wanted("volume", "", "/cache"),
        mounts.Wanted("bind", "/host", "/host", True, ("rslave",), create=True),
        mounts.Wanted("tmpfs", "", "/run", options=("size=1024", "mode=700")),
    ]


@pytest.mark.parametrize("health", [HealthOptions(("CMD", "curl", "x"), retries=9), HealthOptions(("NONE",))])
def test_health_checks_are_those_of_run(health: HealthOptions) -> None:
    assert launched(replace(SERVICE, health=health)).health == health
    assert launched(SERVICE).health == HealthOptions()


def test_standard_input_ends_with_its_client_or_never() -> None:
    """A container that `compose run` made has its input until its client leaves."""
    assert launched(SERVICE).stdin == ""
    assert launched(replace(SERVICE, stdin=True)).stdin == "open"
    wanted = Wanted("x", SERVICE, {}, {}, {}, interactive=True)
    assert launching.stdin(wanted) == "once"
