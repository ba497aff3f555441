"""What `compose ps`, `logs` and `config` print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from windlass_client import output
from windlass_client.compose.adapter import opened
from windlass_client.compose.chosen import Chosen
from windlass_client.compose.engine import Member
from windlass_client.compose.following import Printer, Style, Wish, follow

COLUMNS = ("name", "image", "command", "service", "created", "status", "ports")


def of_services(members: Iterable[Member], names: Sequence[str]) -> list[Member]:
    """Return the containers of services, or all, in the order of their names and numbers."""
    found = [each for each in members if not names or each.service in names]
    return sorted(found, key=lambda each: (each.service, each.one_off, each.number))


async def show_containers(chosen: Chosen, names: Sequence[str], everything: bool, form: str) -> None:
    """Print the containers of a project."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
    shown = [each for each in members if everything or each.runs]
    if form == "ids":
        sys.stdout.write("".join(f"{each.id}\n" for each in shown))
    elif form == "services":
        sys.stdout.write("".join(f"{name}\n" for name in dict.fromkeys(each.service for each in shown)))
    else:
        output.rows([_record(each) for each in shown], COLUMNS, form == "json")


def _record(member: Member) -> dict[str, object]:
    return {
        "id": member.id,
        "name": member.name,
        "image": member.image,
        "command": member.command,
        "service": member.service,
        "created": member.created,
        "state": member.state,
        "status": member.status,
        "health": member.health,
        "exit_code": member.exit_code,
        "ports": member.ports,
        "labels": dict(member.labels),
    }


async def show_logs(chosen: Chosen, names: Sequence[str], wish: Wish, style: Style) -> None:
    """Print what containers wrote."""
    project = chosen.project_if_any(names)
    async with opened(chosen.where) as engine:
        members = of_services(await engine.members(project.name), names)
        await follow(engine, members, Printer(style, project.name), wish)
