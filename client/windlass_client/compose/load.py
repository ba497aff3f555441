"""From compose files to a project: read, replace variables, merge, check, and see that every name is known."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.errors import InvalidArgument, NotFound
from windlass_client.compose import keys, resources
from windlass_client.compose.extends import Extender
from windlass_client.compose.fields import Fields, text
from windlass_client.compose.files import Sources
from windlass_client.compose.interpolation import Variables, interpolate
from windlass_client.compose.merge import merge, without_resets
from windlass_client.compose.model import Project, Service
from windlass_client.compose.order import check_order
from windlass_client.compose.parse import parse, read
from windlass_client.compose.services import Reader
from windlass_client.compose.shorthand import expand, pairs
from windlass_client.compose.values import Section, Value, check_keys, is_null, section, wrong

PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
ALL_PROFILES = "*"


@dataclass(frozen=True)
class Loaded:
    """A project, and the names of variables that its files refer to and that are not set."""

    project: Project
    unset: tuple[str, ...]


def load(sources: Sources, name: str = "", profiles: Collection[str] = (), wanted: Collection[str] = ()) -> Loaded:
    """Return the project that files make. Raises InvalidArgument, NotFound, Unimplemented.

    Services are active if they have no profiles, or one of ``profiles``, or are ``wanted`` by name.
    """
    variables = Variables(_Named(sources.variables, name))
    document = _merged(sources, variables)
    check_keys(document, "", keys.PROJECT, keys.PROJECT_REFUSED)
    fields = Fields(document, "")
    project = _read(fields, sources, _name(fields, sources, name))
    return Loaded(_active(project, _profiles(profiles, sources.variables), wanted), tuple(variables.missing))


class _Named(dict[str, str]):
    """Variables, with the name of the project as one of them."""

    def __init__(self, variables: Mapping[str, str], name: str) -> None:
        super().__init__(variables)
        if name:
            self["COMPOSE_PROJECT_NAME"] = name


def _merged(sources: Sources, variables: Variables) -> Section:
    def load_file(path: Path) -> Section:
        document = interpolate(parse(read(path), _shown(path, sources.directory)), variables)
        return _expanded(document)

    extender = Extender(load_file)
    document: Value | None = None
    for path in sources.files:
        each = extender.all_of(path, load_file(path))
        document = without_resets(each) if document is None else merge(document, each)
    if not isinstance(document, Section):
        raise InvalidArgument("a project needs a compose file; name it with -f")
    return document


def _shown(path: Path, directory: Path) -> str:
    """Return a file's path as errors show it: short, if it is in the project's directory."""
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _expanded(document: Section) -> Section:
    entries = dict(document.entries)
    if "services" in entries:
        services = section(entries["services"], "services")
        found = {name: _service(each, f"services.{name}") for name, each in services.entries.items()}
        entries["services"] = replace(services, entries=found)
    for key in ("networks", "volumes"):
        if isinstance(value := entries.get(key), Section):
            entries[key] = replace(value, entries={name: _labels(each) for name, each in value.entries.items()})
    return replace(document, entries=entries)


def _service(value: Value, path: str) -> Value:
    return value if value.tag == "reset" or is_null(value) else expand(section(value, path), path)


def _labels(value: Value) -> Value:
    if not isinstance(value, Section) or "labels" not in value.entries:
        return value
    return replace(value, entries={**value.entries, "labels": pairs(value.entries["labels"], "labels")})


def _name(document: Fields, sources: Sources, name: str) -> str:
    chosen = name or sources.variables.get("COMPOSE_PROJECT_NAME", "")
    if not chosen and "name" in document:
        chosen = text(document.entry("name"), "name")
    if chosen:
        if not PROJECT_NAME.fullmatch(chosen):
            raise InvalidArgument(
                f"project name {chosen[:80]!r} is not valid; lower-case letters, digits, _ and - are, and the first "
                "is a letter or a digit"
            )
        return chosen
    found = re.sub(r"[^a-z0-9_-]", "", sources.directory.name.lower()).lstrip("_-")
    if not found:
        raise InvalidArgument(f"directory {sources.directory} gives the project no name; choose one with -p")
    return found[:63]


def _read(document: Fields, sources: Sources, name: str) -> Project:
    if "services" not in document:
        raise InvalidArgument(f"{document.value.at}: a compose file needs services; add the key services")
    files = {kind: resources.files(document, kind, sources.directory) for kind in ("secrets", "configs")}
    reader = Reader(sources.directory, sources.variables, files)
    given = {key: value for key, _, value in document.named("services")}
    services = {key: reader.service(key, value) for key, value in given.items()}
    networks, volumes = resources.networks(document, name), resources.volumes(document, name)
    project = Project(name, sources.directory, sources.files, services, networks, volumes)
    for service in services.values():
        _check_names(service, given[service.name], project)
    return project


def _check_names(service: Service, given: Section, project: Project) -> None:
    """Raise InvalidArgument for a network, a volume or a service that a service names and the file has not."""
    used = {mount.source for mount in service.mounts if mount.kind == "volume" and mount.source}
    other = {service.network_mode.partition(":")[2]} if service.network_mode.startswith("service:") else set()
    for key, kind, names, known in (
        ("networks", "networks", service.networks, project.networks),
        ("volumes", "volumes", used, project.volumes),
        ("depends_on", "services", service.depends_on, project.services),
        ("network_mode", "services", other, project.services),
    ):
        for name in names:
            if name not in known:
                problem = f"{name[:80]!r} is not under the top-level {kind}; add it there"
                raise wrong(given.entries.get(key, given), f"services.{service.name}.{key}", problem)


def _profiles(profiles: Collection[str], variables: Mapping[str, str]) -> set[str]:
    return {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}


def _active(project: Project, profiles: set[str], wanted: Collection[str]) -> Project:
    def is_active(service: Service) -> bool:
        everything = ALL_PROFILES in profiles or not service.profiles
        return everything or bool(profiles.intersection(service.profiles)) or service.name in wanted

    for name in wanted:
        if name not in project.services:
            known = ", ".join(project.services) or "none"
            raise NotFound(f"project {project.name} has no service {name[:80]!r}; it has {known}")
    active = {name: each for name, each in project.services.items() if is_active(each)}
    disabled = {name: each for name, each in project.services.items() if name not in active}
    for place, name in _inactive(active, disabled):
        profile = disabled[name].profiles[0]
        raise InvalidArgument(f"{place}: service {name!r} is of a profile that is not active; add --profile {profile}")
    check_order(active)
    return replace(project, services=active, disabled=disabled)


def _inactive(active: Mapping[str, Service], disabled: Mapping[str, Service]) -> Iterator[tuple[str, str]]:
    for service in active.values():
        for name, dependency in service.depends_on.items():
            if name in disabled and dependency.required:
                yield f"{service.at}: services.{service.name}.depends_on", name
