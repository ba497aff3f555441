"""Compose files as projects: long and short forms, merging, extending, names that must be known, order."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from windlass.errors import Error, InvalidArgument, NotFound
from windlass_client.compose.files import find
from windlass_client.compose.load import load
from windlass_client.compose.model import (
    COMPLETED,
    HEALTHY,
    STARTED,
    Attachment,
    Dependency,
    Limits,
    Mount,
    Port,
    Project,
    Service,
)
from windlass_client.compose.order import start_order, with_dependencies
from windlass_client.lifecycle.healthcheck import HealthOptions

Read = Callable[..., Project]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_project(
        text: str,
        *more: str,
        name: str = "",
        profiles: Sequence[str] = (),
        wanted: Sequence[str] = (),
        environment: Mapping[str, str] = {},
    ) -> Project:
        folder = tmp_path / "Demo 1"
        folder.mkdir(exist_ok=True)
        names = ["compose.yaml", *(f"more{number}.yaml" for number in range(len(more)))]
        for file, content in zip(names, (text, *more), strict=True):
            (folder / file).write_text(content)
        sources = find(names if more else (), "", (), environment, folder)
        return load(sources, name, profiles, wanted).project

    return read_project


def one(project: Project) -> Service:
    [service] = project.services.values()
    return service


SHORT = """
services:
  web:
    image: nginx
    command: nginx -g 'daemon off;'
    entrypoint: [/entry, "a b"]
    environment: [A=1, B, C=]
    labels: [a.b=c]
    ports: ["80", "8080:80", "127.0.0.1:90-91:90-91/udp", "[::1]:5:5", "8000-8002:70"]
    volumes: [/data, "cache:/cache:ro", "./html:/html:ro,rslave", "~/x:/x"]
    tmpfs: /run:size=1m,mode=1777
    networks: [back]
    depends_on: [db]
    dns: 1.1.1.1
    extra_hosts: ["a:10.0.0.1", "b=::1"]
    restart: on-failure:3
    mem_limit: 64m
    cpus: .5
    healthcheck: {test: curl localhost, interval: 1m30s, retries: 3}
  db: {image: db, networks: {back: }, healthcheck: {disable: true}}
networks: {back: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}}}
volumes: {cache: }
"""

LONG = """
services:
  web:
    image: nginx
    command: [nginx, -g, daemon off;]
    entrypoint: [/entry, "a b"]
    environment: {A: 1, B: , C: ''}
    labels: {a.b: c}
    ports:
      - target: 80
      - {target: 80, published: 8080}
      - {target: 90, published: "90", host_ip: 127.0.0.1, protocol: udp}
      - {target: 91, published: "91", host_ip: 127.0.0.1, protocol: udp}
      - {target: 5, published: "5", host_ip: "::1"}
      - {target: 70, published: 8000-8002}
    volumes:
      - {type: volume, target: /data}
      - {type: volume, source: cache, target: /cache, read_only: true}
      - {type: bind, source: ./html, target: /html, read_only: true, bind: {propagation: rslave}}
      - {type: bind, source: ~/x, target: /x}
      - {type: tmpfs, target: /run, tmpfs: {size: 1048576, mode: 1777}}
    networks: {back: {}}
    depends_on: {db: {condition: service_started}}
    dns: [1.1.1.1]
    extra_hosts: {a: 10.0.0.1, b: "::1"}
    deploy:
      restart_policy: {condition: on-failure, max_attempts: 3}
      resources: {limits: {memory: 64MB, cpus: "0.5"}}
    healthcheck: {test: [CMD-SHELL, curl localhost], interval: 90s, retries: 3}
  db: {image: db, networks: [back], healthcheck: {test: [NONE]}}
networks: {back: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}}}
volumes: {cache: {}}
"""


@pytest.mark.parametrize("text", [SHORT, LONG], ids=["short", "long"])
def test_short_and_long_forms_are_one_service(read: Read, text: str, tmp_path: Path) -> None:
    """Each key has the meaning that the specification gives it."""
    project = read(text, environment={"B": "2", "HOME": "/root"})
    web = project.services["web"]
    assert project.name == "demo1"
    assert web.command == ("nginx", "-g", "daemon off;")
    assert web.entrypoint == ("/entry", "a b")
    assert web.environment == {"A": "1", "B": "2", "C": ""}
    assert web.labels == {"a.b": "c"}
    assert web.ports == (
        Port(80),
        Port(80, "8080"),
        Port(90, "90", "udp", "127.0.0.1"),
        Port(91, "91", "udp", "127.0.0.1"),
        Port(5, "5", "tcp", "::1"),
        Port(70, "8000-8002"),
    )
    assert web.mounts == (
        Mount("volume", "", "/data"),
        Mount("volume", "cache", "/cache", read_only=True),
        Mount("bind", str(tmp_path / "Demo 1/html"), "/html", read_only=True, propagation="rslave"),
        Mount("bind", str(Path("~/x").expanduser()), "/x"),
        Mount("tmpfs", "", "/run", size=1 << 20, mode=0o1777),
    )
    assert web.networks == {"back": Attachment()}
    assert web.depends_on == {"db": Dependency(STARTED)}
    assert (web.dns, web.extra_hosts) == (("1.1.1.1",), ("a:10.0.0.1", "b:::1"))
    assert web.restart == "on-failure:3"
    assert web.limits == Limits(64 << 20, 0.5)
    assert web.health == HealthOptions(("CMD-SHELL", "curl localhost"), interval=90, retries=3)
    assert project.services["db"].health == HealthOptions(("NONE",))
    back = project.networks["back"]
    assert (back.name, back.internal, back.subnets, back.gateway) == (
        "demo1_back",
        True,
        ("10.9.0.0/24",),
        "10.9.0.1",
    )
    assert project.volumes["cache"].name == "demo1_cache"


def test_a_later_file_is_put_over_an_earlier_one(read: Read) -> None:
    """Mappings by key, lists by item, commands as a whole; `!reset` and `!override` say otherwise."""
    project = read(
        """
services:
  web:
    image: one
    command: [a, b]
    environment: [A=1, B=1]
    ports: ["80:80", "81:81"]
    volumes: ["./a:/x", "./b:/y"]
    dns: [1.1.1.1]
    cap_add: [CHOWN]
    healthcheck: {test: [CMD, a], retries: 3}
    labels: {a: 1}
  gone: {image: gone}
""",
        """
services:
  web:
    image: two
    command: c
    environment: {B: 2, C: 3}
    ports: ["80:80", "82:82"]
    volumes: ["./c:/x:ro"]
    dns: !override [9.9.9.9]
    cap_add: !reset null
    healthcheck: {test: [CMD, b]}
  gone: !reset null
""",
    )
    web = one(project)
    assert (web.image, web.command, web.dns, web.cap_add) == ("two", ("c",), ("9.9.9.9",), ())
    assert web.environment == {"A": "1", "B": "2", "C": "3"}
    assert [port.target for port in web.ports] == [80, 81, 82]
    assert [(Path(mount.source).name, mount.target, mount.read_only) for mount in web.mounts] == [
        ("c", "/x", True),
        ("b", "/y", False),
    ]
    assert web.health == HealthOptions(("CMD", "b"), retries=3)
    assert web.labels == {"a": "1"}


def test_a_service_extends_another(read: Read, tmp_path: Path) -> None:
    """Of its own file or of another, whose relative paths begin there."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "base.yaml").write_text(
        "services: {base: {extends: root, volumes: [./d:/d, v:/v], environment: [A=1]}, root: {image: root}}"
    )
    project = read(
        """
services:
  web: {extends: {service: base, file: ../base/base.yaml}, environment: [B=2]}
volumes: {v: }
"""
    )
    web = one(project)
    assert (web.image, web.environment) == ("root", {"A": "1", "B": "2"})
    assert [mount.source for mount in web.mounts] == [str(tmp_path / "base/d"), "v"]


def test_files_are_found_and_named(tmp_path: Path, read: Read) -> None:
    """In the directory or above it, with their override; `.env` and the environment may name them."""
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    for name in ("docker-compose.yml", "docker-compose.override.yml"):
        (tmp_path / "project" / name).write_text("services: {}")
    (tmp_path / "project" / ".env").write_text("A=file\nB=$A\n")
    sources = find((), "", (), {"A": "shell"}, inner)
    assert [path.name for path in sources.files] == ["docker-compose.yml", "docker-compose.override.yml"]
    assert sources.directory == tmp_path / "project"
    assert sources.variables == {"A": "shell", "B": "shell"}
    named = find((), "", (), {"COMPOSE_FILE": "a.yaml:b.yaml"}, tmp_path)
    assert [path.name for path in named.files] == ["a.yaml", "b.yaml"]
    with pytest.raises(NotFound, match=r"have no compose\.yaml; name the file with -f"):
        find((), "", (), {}, Path(os.devnull).parent / "no")
    with pytest.raises(NotFound, match="does not exist; name the compose file with -f"):
        load(find(("none.yaml",), "", (), {}, tmp_path))


def test_the_name_of_a_project(read: Read) -> None:
    """-p, then the environment, then the file, then the directory; the file may use it."""
    text = "name: filed\nservices: {web: {image: '${COMPOSE_PROJECT_NAME:-}'}}"
    assert read(text).name == "filed"
    assert read(text, environment={"COMPOSE_PROJECT_NAME": "env"}).name == "env"
    named = read(text, name="own")
    assert (named.name, one(named).image) == ("own", "own")
    with pytest.raises(InvalidArgument, match="project name 'No' is not valid"):
        read(text, name="No")


def test_profiles_choose_services(read: Read) -> None:
    """A service without profiles is always there; one that is asked for by name is there as well."""
    text = "services: {web: {image: i}, test: {image: i, profiles: [dev, ci]}}"
    assert list(read(text).services) == ["web"]
    assert list(read(text, profiles=["ci"]).services) == ["web", "test"]
    assert list(read(text, environment={"COMPOSE_PROFILES": "dev"}).services) == ["web", "test"]
    assert list(read(text, wanted=["test"]).services) == ["web", "test"]
    assert list(read(text, profiles=["*"]).services) == ["web", "test"]
    with pytest.raises(NotFound, match="project demo1 has no service 'none'; it has web, test"):
        read(text, wanted=["none"])
    with pytest.raises(InvalidArgument, match="service 'test' is of a profile that is not active; add --profile dev"):
        read("services: {web: {image: i, depends_on: [test]}, test: {image: i, profiles: [dev]}}")


def test_variables_of_files(read: Read, tmp_path: Path) -> None:
    """`environment` is stronger than `env_file`; a file may be missing if it is not required."""
    (tmp_path / "Demo 1").mkdir()
    (tmp_path / "Demo 1" / "a.env").write_text('A=1\nB="x$HOST"\n')
    text = "services: {web: {image: i, env_file: [a.env, {path: no.env, required: false}], environment: [A=2]}}"
    assert one(read(text, environment={"HOST": "h"})).environment == {"A": "2", "B": "xh"}
    with pytest.raises(InvalidArgument, match=r"services.web.env_file.0: .*/no.env does not exist; create it"):
        read("services: {web: {image: i, env_file: no.env}}")


def test_secrets_are_mounted(read: Read, tmp_path: Path) -> None:
    """Read-only, in /run/secrets; configs at the root."""
    project = read(
        """
services: {web: {image: i, secrets: [key], configs: [{source: conf, target: /etc/conf}]}}
secrets: {key: {file: ./key.txt}}
configs: {conf: {file: /etc/host.conf}}
"""
    )
    assert one(project).mounts == (
        Mount("bind", str(tmp_path / "Demo 1/key.txt"), "/run/secrets/key", read_only=True, create=False),
        Mount("bind", "/etc/host.conf", "/etc/conf", read_only=True, create=False),
    )


def test_services_start_after_what_they_need(read: Read) -> None:
    """Also after the one whose network they share."""
    project = read(
        """
services:
  web: {image: i, depends_on: {db: {condition: service_healthy}, setup: {condition: service_completed_successfully}}}
  side: {image: i, network_mode: "service:web"}
  db: {image: i}
  setup: {image: i, depends_on: [db]}
  alone: {image: i}
"""
    )
    order = start_order(project.services)
    assert order.index("db") < order.index("setup") < order.index("web") < order.index("side")
    assert [each.condition for each in project.services["web"].depends_on.values()] == [HEALTHY, COMPLETED]
    assert set(with_dependencies(project.services, ["setup"])) == {"setup", "db"}


CIRCLE = """services:
  a: {image: i, depends_on: [b]}
  b: {image: i, depends_on: [c]}
  c: {image: i, depends_on: [a]}
"""
WEB = "services:\n  web:\n    image: i\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            WEB + "    privilegd: true",
            "4: services.web.privilegd: the Compose specification has no key 'privilegd'; did",
        ),
        (WEB + "    links: [db]", "4: services.web.links: not supported by `windlass compose`; services of a"),
        (WEB + "    networks: [none]", "4: services.web.networks: 'none' is not under the top-level networks; add it"),
        (
            WEB + "    volumes: ['v:/v']",
            "4: services.web.volumes: 'v' is not under the top-level volumes; add it there",
        ),
        (WEB + "    depends_on: [db]", "4: services.web.depends_on: 'db' is not under the top-level services; add it"),
        (WEB + "    depends_on: {web: {condition: ready}}", "4: services.web.depends_on.web.condition: 'ready' is not"),
        (
            WEB + "    depends_on: [web]",
            "2: services.web.depends_on: services depend on each other: web -> web; remove",
        ),
        (WEB + "    ports: ['x']", "4: services.web.ports.0: port 'x' is not of the form"),
        (WEB + "    ports: ['1-2:1-3']", "4: services.web.ports.0: port '1-2:1-3' has two ranges of different lengths"),
        (WEB + "    ports: ['70000:1']", "4: services.web.ports.0.published: must be a whole number from 0 to 65535"),
        (WEB + "    ports: ['0']", "4: services.web.ports.0.target: must be a whole number from 1 to 65535"),
        (WEB + "    volumes: ['a:b:c:d']", "4: services.web.volumes.0: volume 'a:b:c:d' is not of the form"),
        (WEB + "    volumes: ['./a:/b:rx']", "4: services.web.volumes.0: volume './a:/b:rx' has an unknown mode 'rx'"),
        (WEB + "    volumes: ['v:b']", "4: services.web.volumes.0: target 'b' is not an absolute path"),
        (WEB + "    restart: often", "4: services.web.restart: 'often' is not known; known are no, always"),
        (WEB + "    mem_limit: much", "4: services.web.mem_limit: must be a size such as 64m, and is 'much'"),
        (WEB + "    ulimits: {nofile: {soft: 1}}", "4: services.web.ulimits.nofile: needs both soft and hard"),
        (WEB + "    gpus: two", "4: services.web.gpus: 'two' is not one of all"),
        (WEB + "    cpus: -1", "4: services.web.cpus: must be a number such as 0.5, and is '-1'"),
        (WEB + "    read_only: maybe", "4: services.web.read_only: must be true or false, and is 'maybe'"),
        (WEB + '    command: "a \'b"', '4: services.web.command: "a \'b" cannot be split into words: no closing'),
        (WEB + "    environment: 1", "4: services.web.environment: must be a mapping, and is '1'"),
        (WEB + "    environment: {A: [1]}", "4: services.web.environment.A: must be text, and is a list"),
        (WEB + "    healthcheck: {test: [curl]}", "4: services.web.healthcheck.test: a list must begin with CMD,"),
        (
            WEB + "    healthcheck: {test: a, interval: 5}",
            "4: services.web.healthcheck.interval: must be a duration such as",
        ),
        (WEB + "    network_mode: bridged", "4: services.web.network_mode: 'bridged' is not known; known are"),
        (WEB + "    network_mode: host\n    networks: [a]", "4: services.web.network_mode: network_mode and networks"),
        (WEB + "    secrets: [key]", "4: services.web.secrets.0: 'key' is not under the top-level secrets; add it"),
        (WEB + "    container_name: one\n    scale: 2", "4: services.web.container_name: 2 containers cannot have one"),
        (WEB + "    extends: nobody", "4: services.web.extends: "),
        (WEB + "    deploy: {placement: {}}", "4: services.web.deploy.placement: not supported by `windlass compose`;"),
        (
            WEB + "    deploy: {resources: {reservations: {cpus: 1}}}",
            "4: services.web.deploy.resources.reservations.cp",
        ),
        (WEB + "include: [x]", "4: include: not supported by `windlass compose`; name the other files with -f"),
        (WEB + "volums: {}", "4: volums: the Compose specification has no key 'volums'; did you mean 'volumes'?"),
        (WEB + "networks: {a: {external: true, driver: bridge}}", "4: networks.a.external: others made it"),
        (WEB + "secrets: {a: {external: true}}", "4: secrets.a.external: not supported by `windlass compose`; put the"),
        ("services:\n  web:\n    command: x", "2: services.web: a service needs an image; name it under image"),
        ("services:\n  web: text", "2: services.web: must be a mapping, and is 'text'"),
        ("services:\n  'a b': {image: i}", "2: services.a b: "),
        ("services:\n  web:", "2: services.web: a service needs an image"),
        ("version: '3'", "1: a compose file needs services; add the key services"),
        (
            CIRCLE,
            "2: services.a.depends_on: services depend on each other: a -> b -> c -> a; remove one",
        ),
        (
            "services:\n  a: {extends: b}\n  b: {extends: a}",
            "2: services.a.extends: services extend each other: a -> b -> a; remove one extends",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(read: Read, text: str, problem: str) -> None:
    """File, line, the way to the key, and the remedy."""
    with pytest.raises(Error) as caught:
        read(text)
    assert str(caught.value).startswith(f"compose.yaml:{problem}") and "\n" not in str(caught.value)


def test_keys_of_authors_are_theirs(read: Read) -> None:
    """The specification reserves `x-` everywhere."""
    read(
        "x-a: 1\nservices: {web: {image: i, x-b: 1, healthcheck: {test: a, x-c: 1}}}\nnetworks: {x-d: {}, n: {x-e: 1}}"
    )
