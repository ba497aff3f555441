"""In which order services start: after those that they depend on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from windlass.errors import InvalidArgument
from windlass_client.compose.model import Service


def needs(service: Service) -> set[str]:
    """Return the services that must be there first: its dependencies, and the one whose network it shares."""
    kind, _, other = service.network_mode.partition(":")
    return {*service.depends_on, *((other,) if kind == "service" else ())}


def start_order(services: Mapping[str, Service]) -> list[str]:
    """Return names with dependencies first; otherwise in the order of the file."""
    return list(_sorter(services).static_order())


def check_order(services: Mapping[str, Service]) -> None:
    """Raise InvalidArgument if services depend on each other."""
    try:
        _sorter(services).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]
        place = services[circle[0]].at
        raise InvalidArgument(
            f"{place}: services.{circle[0]}.depends_on: services depend on each other: {' -> '.join(circle)}; "
            "remove one of these dependencies"
        ) from None


def _sorter(services: Mapping[str, Service]) -> TopologicalSorter[str]:
    return TopologicalSorter(
        {name: [each for each in needs(service) if each in services] for name, service in services.items()}
    )


def with_dependencies(services: Mapping[str, Service], names: Collection[str]) -> dict[str, Service]:
    """Return the services of these names, and those that they depend on; all, if no name is given."""
    found: set[str] = set()
    waiting = list(names or services)
    while waiting:
        name = waiting.pop()
        if name not in found and name in services:
            found.add(name)
            waiting += needs(services[name])
    return {name: each for name, each in services.items() if name in found}
