"""`windlass compose` up, down, ps, logs, config and pull."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import Unpack

    from windlass_client.compose.bringing import UpRequest
    from windlass_client.compose.chosen import Chosen


@click.command()
@click.argument("services", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="Return when all is started.")
@click.option("--wait", is_flag=True, help="Return when all is running and healthy; implies -d.")
@click.option("--build", is_flag=True, hidden=True)
@click.option("--pull", type=click.Choice(["always", "missing", "never"]), default=None, help="When to pull images.")
@click.option("--force-recreate", is_flag=True, help="Make all containers anew.")
@click.option("--no-recreate", is_flag=True, help="Keep the containers that are there.")
@click.option("--no-start", is_flag=True, help="Make the containers only.")
@click.option("--no-deps", is_flag=True, help="Leave out what the services depend on.")
@click.option("--remove-orphans", is_flag=True, help="Remove containers of services that the file no longer has.")
@click.option("--scale", multiple=True, metavar="SERVICE=N", help="Have N containers of a service.")
@click.option("-t", "--timeout", type=float, default=None, help="Seconds from stopping a container to killing it.")
@click.option("--abort-on-container-exit", "abort", is_flag=True, help="Stop all when one has ended.")
@click.option("--exit-code-from", "decisive", default="", metavar="SERVICE", help="Return its exit code; implies that.")
@click.option("--no-color", is_flag=True, help="Print no colors.")
@click.option("--no-log-prefix", is_flag=True, help="Print no names before lines.")
@click.option("--timestamps", is_flag=True, help="Print the time of each line.")
@click.pass_obj
def up(chosen: Chosen, /, **request: Unpack[UpRequest]) -> int:
    """Make and start the containers of SERVICES, or of all; without -d, follow their output until ^C stops them."""
    from windlass_client.compose.bringing import up as bring_up

    return asyncio.run(bring_up(chosen, request))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-v", "--volumes", is_flag=True, help="Remove the volumes, too.")
@click.option("--remove-orphans", is_flag=True, help="Remove containers of services that the file no longer has.")
@click.option("-t", "--timeout", type=float, default=None, help="Seconds from stopping a container to killing it.")
@click.pass_obj
def down(chosen: Chosen, services: tuple[str, ...], volumes: bool, remove_orphans: bool, timeout: float | None) -> None:
    """Stop and remove the containers of SERVICES, or all of the project with its networks."""
    from windlass_client.compose.bringing import down as take_down

    asyncio.run(take_down(chosen, services, volumes, remove_orphans, timeout))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Show containers that have ended, too.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--services", "names_only", is_flag=True, help="Print names of services only.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.pass_obj
def ps(chosen: Chosen, services: tuple[str, ...], everything: bool, quiet: bool, names_only: bool, form: str) -> None:
    """List the containers of the project."""
    from windlass_client.compose.showing import show_containers

    asyncio.run(show_containers(chosen, services, everything, "ids" if quiet else "services" if names_only else form))


@click.command()
@click.argument("services", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on until all have ended.")
@click.option("-n", "--tail", default="all", metavar="N", help="Begin with the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Print the time of each line.")
@click.option("--since", default="", metavar="TIME", help="Begin at a time, such as 10m or 2026-01-31T12:00:00Z.")
@click.option("--until", default="", metavar="TIME", help="End at a time.")
@click.option("--no-color", is_flag=True, help="Print no colors.")
@click.option("--no-log-prefix", is_flag=True, help="Print no names before lines.")
@click.pass_obj
def logs(
    chosen: Chosen,
    services: tuple[str, ...],
    follow: bool,
    tail: str,
    timestamps: bool,
    since: str,
    until: str,
    no_color: bool,
    no_log_prefix: bool,
) -> None:
    """Print what the containers of SERVICES, or of all, wrote."""
    from windlass_client.compose.following import Wish, style
    from windlass_client.compose.showing import show_logs

    if tail != "all" and not (tail.isascii() and tail.isdigit()):
        raise click.BadParameter(f"{tail!r} is neither a number nor all", param_hint="--tail")
    wish = Wish(follow, None if tail == "all" else int(tail), since, until)
    asyncio.run(show_logs(chosen, services, wish, style(no_color, no_log_prefix, timestamps)))


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only check the files.")
@click.option("--services", "part", flag_value="services", help="Print names of services.")
@click.option("--volumes", "part", flag_value="volumes", help="Print names of volumes.")
@click.option("--networks", "part", flag_value="networks", help="Print names of networks.")
@click.option("--profiles", "part", flag_value="profiles", help="Print names of profiles.")
@click.option("--images", "part", flag_value="images", help="Print names of images.")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="How to print.")
@click.pass_obj
def config(chosen: Chosen, quiet: bool, part: str | None, form: str) -> None:
    """Check the files, and print the project that they make."""
    from windlass_client.compose.rendering import rendered

    project = chosen.project()
    if not quiet:
        click.echo(rendered(project, part or form), nl=False)


@click.command()
@click.argument("services", nargs=-1)
@click.option("--include-deps", is_flag=True, help="Pull for what the services depend on, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.pass_obj
def pull(chosen: Chosen, services: tuple[str, ...], include_deps: bool, quiet: bool) -> None:
    """Pull the images of SERVICES, or of all."""
    from windlass_client.compose.bringing import pull as pull_images

    asyncio.run(pull_images(chosen, services, include_deps, quiet))
