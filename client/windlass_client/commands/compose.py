"""`windlass compose`: its options, and its commands by the modules that declare them."""

from __future__ import annotations

import click

from windlass_client.cli import Commands, Where

TABLE = {
    "up": "composeproject:up",
    "down": "composeproject:down",
    "ps": "composeproject:ps",
    "logs": "composeproject:logs",
    "config": "composeproject:config",
    "pull": "composeproject:pull",
    "start": "composeservices:start",
    "stop": "composeservices:stop",
    "restart": "composeservices:restart",
    "kill": "composeservices:kill",
    "rm": "composeservices:rm",
    "exec": "composeservices:exec_",
    "run": "composeservices:run",
}


@click.group("compose", cls=Commands, table=TABLE)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="A compose file; later ones go over it.")
@click.option("-p", "--project-name", "name", default="", metavar="NAME", help="Name of the project.")
@click.option("--project-directory", "directory", default="", metavar="DIR", help="Where relative paths begin.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Variables, instead of .env.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Activate services of a profile; * is all.")
@click.pass_context
def compose(
    context: click.Context,
    files: tuple[str, ...],
    name: str,
    directory: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
) -> None:
    """Bring the services of a compose file up and down."""
    from windlass_client.compose.chosen import Chosen

    where = context.find_object(Where)
    assert where is not None
    context.obj = Chosen(where, files, name, directory, env_files, profiles)
