"""`windlass login` and logout: credentials for registries, where docker keeps them, too."""

from __future__ import annotations

import sys

import click

from windlass_client.cli import Where


@click.command()
@click.argument("server", default="")
@click.option("-u", "--username", default="", help="Otherwise it is asked for.")
@click.option("-p", "--password", default="", help="Other users of this machine can see it; prefer --password-stdin.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--hosts-dir", default="", metavar="DIR", help="The directory with hosts.toml files.")
@click.option("--plain-http", is_flag=True, help="Use http, not https.")
@click.pass_obj
def login(
    where: Where, server: str, username: str, password: str, password_stdin: bool, hosts_dir: str, plain_http: bool
) -> None:
    """Log in to a registry, docker.io if SERVER is not given; pull and push use it from then on."""
    from windlass.contracts.transfer import Credentials
    from windlass_registry import logins
    from windlass_registry.client import CERTS_D, roots_of
    from windlass_registry.credentials import docker_config

    registry = logins.registry_of(server)
    given = Credentials(*_asked(username, password, password_stdin))
    scheme = "http" if plain_http else ""
    logins.verify(registry, given, roots_of(hosts_dir) if hosts_dir else CERTS_D, scheme)
    place = logins.Logins(docker_config()).store(registry, given)
    if place == str(docker_config()):
        click.echo(
            f"WARNING! Your password is stored unencrypted in {place}; a credential helper avoids that.", err=True
        )
    click.echo("Login Succeeded")


def _asked(username: str, password: str, password_stdin: bool) -> tuple[str, str]:
    if password_stdin:
        if password:
            raise click.UsageError("--password and --password-stdin exclude each other")
        if not username:
            raise click.UsageError("--password-stdin needs --username")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        click.echo("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", err=True)
    elif not sys.stdin.isatty():
        raise click.UsageError("a password is asked for on a terminal only; use --password-stdin")
    username = username or click.prompt("Username", err=True)
    password = password or click.prompt("Password", hide_input=True, err=True)
    if not password:
        raise click.UsageError("the password is empty")
    return username, password


@click.command()
@click.argument("server", default="")
def logout(server: str) -> None:
    """Forget the credentials for a registry, docker.io if SERVER is not given."""
    from windlass_registry import logins
    from windlass_registry.credentials import docker_config

    registry = logins.registry_of(server)
    if logins.Logins(docker_config()).erase(registry):
        click.echo(f"Removing login credentials for {logins.key_of(registry)}")
    else:
        click.echo(f"Not logged in to {logins.key_of(registry)}")
