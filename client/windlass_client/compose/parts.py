"""Reads what a service has several of: ports, mounts, networks, dependencies; and its health and limits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from windlass.errors import Unimplemented
from windlass_client.compose import keys
from windlass_client.compose.fields import Fields, number
from windlass_client.compose.fields import size as read_size
from windlass_client.compose.model import (
    COMPLETED,
    HEALTHY,
    STARTED,
    Attachment,
    Build,
    Dependency,
    Limits,
    Mount,
    Port,
)
from windlass_client.compose.values import Scalar, Section, check_keys, section, wrong
from windlass_client.lifecycle.healthcheck import HealthOptions

LAST_PORT = 65535
PROTOCOLS = ("tcp", "udp", "sctp")
NOTHING: Mapping[str, str] = {}


def fields(value: Section, path: str, known: set[str], refused: Mapping[str, str] = NOTHING) -> Fields:
    """Return the values of a mapping, once its keys are checked."""
    check_keys(value, path, known, refused)
    return Fields(value, path)


def nested(parent: Fields, key: str, known: set[str], refused: Mapping[str, str] = NOTHING) -> Fields:
    """Return the values of a mapping in another one, once its keys are checked; none if it is not there."""
    value = section(parent.entry(key), parent.at(key)) if key in parent else Section({}, parent.value.at)
    return fields(value, parent.at(key), known, refused)


def ports(service: Fields) -> tuple[Port, ...]:
    """Return the ports that are published."""
    return tuple(_port(fields(value, path, keys.PORT)) for path, value in service.sections("ports"))


def _port(port: Fields) -> Port:
    published = port.text("published")
    for word in published.split("-", 1) if published else ():
        number(Scalar(word, port.value.at), port.at("published"), 0, LAST_PORT)
    protocol = port.choice("protocol", PROTOCOLS, "tcp")
    port.choice("mode", ("host", "ingress"), "ingress")
    if "target" not in port:
        raise wrong(port.value, port.path, "a port needs a target, which is the container's port")
    return Port(port.number("target", least=1, most=LAST_PORT), published, protocol, port.text("host_ip"))


def mounts(service: Fields, directory: Path) -> Iterator[Mount]:
    """Yield what is mounted, with the names of volumes as the file has them."""
    for path, value in service.sections("volumes"):
        yield _mount(fields(value, path, keys.MOUNT), directory)
    for text in service.texts("tmpfs"):
        target, _, options = text.partition(":")
        yield _tmpfs(service, target, options)


def _mount(mount: Fields, directory: Path) -> Mount:
    kind = mount.choice("type", ("bind", "volume", "tmpfs"), "volume")
    bind = nested(mount, "bind", keys.BIND)
    nested(mount, "volume", keys.VOLUME_OPTIONS, keys.VOLUME_OPTIONS_REFUSED)
    memory = nested(mount, "tmpfs", keys.TMPFS)
    source, target = mount.text("source"), mount.text("target")
    if not target.startswith("/"):
        raise wrong(mount.value, mount.path, f"target {target[:80]!r} is not an absolute path")
    if kind == "bind":
        if not source:
            raise wrong(mount.value, mount.path, "a bind mount needs a source, which is a path of the host")
        source = located(source, directory)
    return Mount(
        kind,
        source,
        target,
        mount.flag("read_only"),
        bind.text("propagation"),
        bind.flag("create_host_path", default=True),
        memory.size("size"),
        int(memory.text("mode", "0"), 8) if "mode" in memory else 0,
    )


def _tmpfs(service: Fields, target: str, options: str) -> Mount:
    size, mode = 0, 0
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            size = read_size(Scalar(value, service.entry("tmpfs").at), service.at("tmpfs"))
        elif key == "mode" and value.isdigit():
            mode = int(value, 8)
        elif key not in ("rw", "nosuid", "nodev", "noexec"):
            at = service.entry("tmpfs").at
            raise Unimplemented(f"{at}: {service.at('tmpfs')}: option {option[:40]!r} is not known; size and mode are")
    return Mount("tmpfs", "", target, size=size, mode=mode)


def located(path: str, directory: Path) -> str:
    """Return a path of the host, absolute; relative ones begin at the project's directory."""
    return os.path.normpath(directory / Path(path).expanduser())


def networks(service: Fields) -> dict[str, Attachment]:
    """Return the networks that a service asks for by itself."""
    found = {}
    for name, path, value in service.named("networks"):
        attachment = fields(value, path, keys.ATTACHMENT, keys.ATTACHMENT_REFUSED)
        found[name] = Attachment(attachment.texts("aliases"), attachment.text("ipv4_address"))
    return found


def dependencies(service: Fields) -> dict[str, Dependency]:
    """Return what must be so of others first."""
    found = {}
    for name, path, value in service.named("depends_on"):
        each = fields(value, path, keys.DEPENDENCY)
        condition = each.choice("condition", (STARTED, HEALTHY, COMPLETED), STARTED)
        found[name] = Dependency(condition, each.flag("required", default=True), each.flag("restart"))
    return found


def health(service: Fields) -> HealthOptions | None:
    """Return how its health is looked after, None if the image says so."""
    if "healthcheck" not in service:
        return None
    check = nested(service, "healthcheck", keys.HEALTH)
    test: tuple[str, ...] = ()
    if check.flag("disable"):
        test = ("NONE",)
    elif "test" in check:
        test = _test(check)
    return HealthOptions(
        test,
        interval=check.duration("interval"),
        timeout=check.duration("timeout"),
        start_period=check.duration("start_period"),
        start_interval=check.duration("start_interval"),
        retries=check.number("retries"),
    )


def _test(check: Fields) -> tuple[str, ...]:
    value = check.entry("test")
    words = check.texts("test")
    if isinstance(value, Scalar):
        return ("CMD-SHELL", *words)
    least = {"NONE": 1, "CMD": 2, "CMD-SHELL": 2}
    if not words or words[0] not in least or len(words) < least[words[0]]:
        raise wrong(value, check.at("test"), "a list must begin with CMD, CMD-SHELL or NONE, and name a command")
    return words


def limits(service: Fields, deploy: Fields) -> Limits:
    """Return what it may take, from its own keys or from `deploy`."""
    resources = nested(deploy, "resources", keys.RESOURCES)
    nested(resources, "reservations", set(), keys.RESERVATIONS_REFUSED)
    most = nested(resources, "limits", keys.LIMITS)
    return Limits(
        service.size("mem_limit") or most.size("memory"),
        service.fraction("cpus") or most.fraction("cpus"),
        service.number("pids_limit", least=-1) or most.number("pids", least=-1),
    )


def ulimits(service: Fields) -> Iterator[tuple[str, str]]:
    """Yield limits of processes, as `--ulimit` has them."""
    found = section(service.entry("ulimits"), service.at("ulimits")).entries if "ulimits" in service else {}
    for name, value in found.items():
        path = f"{service.at('ulimits')}.{name}"
        if not isinstance(value, Section):
            yield name, str(number(value, path, -1, 1 << 62))
            continue
        each = fields(value, path, keys.ULIMIT)
        if "soft" not in each or "hard" not in each:
            raise wrong(value, path, "needs both soft and hard")
        yield name, f"{each.number('soft', least=-1)}:{each.number('hard', least=-1)}"


def build(service: Fields, directory: Path) -> Build | None:
    """Return where its image is built, None if it is not."""
    if "build" not in service:
        return None
    value = service.entry("build")
    if isinstance(value, Scalar):
        return Build(located(value.text or "", directory))
    each = nested(service, "build", keys.BUILD, keys.BUILD_REFUSED)
    dockerfile, target = each.text("dockerfile"), each.text("target")
    return Build(located(each.text("context", "."), directory), dockerfile, target, each.variables("args"))
