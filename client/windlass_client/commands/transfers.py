"""`windlass image`: pull and push, which the daemon does, with progress."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

from windlass_client import output
from windlass_client.cli import Where
from windlass_client.commands.images import as_json_option, platform_options, quiet_option, wanted_platforms

if TYPE_CHECKING:
    from typing import Unpack

    from windlass.contracts.transfer import Ask, Credentials
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_api.containerd.types.transfer.progress_pb2 import Progress
    from windlass_client.transfer import Remote

F = TypeVar("F", bound=Callable[..., object])


class RegistryOptions(TypedDict):
    """What `registry_options` adds to a command."""

    user: str
    password_stdin: bool
    anonymous: bool
    hosts_dir: str
    plain_http: bool
    http_trace: bool


def registry_options(function: F) -> F:
    """Add what says how a registry is reached."""
    options = (
        click.option(
            "-u",
            "--user",
            default="",
            metavar="USER[:PASSWORD]",
            help="Log in to the registry of the name, not to mirrors; without a password it is asked for.",
        ),
        click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
        click.option("--anonymous", is_flag=True, help="Do not log in, whatever docker's configuration has."),
        click.option("--hosts-dir", default="", metavar="DIR", help="The daemon's directory with hosts.toml files."),
        click.option("--plain-http", is_flag=True, help="Use http, not https."),
        click.option("--http-trace", is_flag=True, help="Write each request and answer to standard error."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def remote(
    reference: str,
    user: str,
    password_stdin: bool,
    anonymous: bool,
    hosts_dir: str,
    plain_http: bool,
    http_trace: bool,
) -> Remote:
    """Return what the options of `registry_options` mean."""
    from windlass_client.transfer import Remote

    trace = (lambda line: click.echo(output.printable(line), err=True)) if http_trace else None
    ask = None if anonymous else _asker(reference, user, password_stdin)
    return Remote(reference, ask, host_dir=hosts_dir, plain_http=plain_http, trace=trace)


def _asker(reference: str, user: str, password_stdin: bool) -> Ask:
    from windlass.contracts.transfer import Credentials
    from windlass_registry.hosts import same_registry

    if not user:
        if password_stdin:
            raise click.UsageError("--password-stdin needs --user")
        return _from_docker
    name, colon, password = user.partition(":")
    if password_stdin:
        if colon:
            raise click.UsageError("--password-stdin and a password in --user exclude each other")
        password = sys.stdin.readline().rstrip("\r\n")
    elif not colon:
        password = click.prompt("Password", hide_input=True, err=True)
    given = Credentials(name, password)

    registry = reference.partition("/")[0]

    async def ask(host: str, reference: str) -> Credentials | None:
        # The password is for the named registry, not for a mirror or a host that the daemon is redirected to.
        return given if same_registry(host, registry) else await _from_docker(host, reference)

    return ask


async def _from_docker(host: str, reference: str) -> Credentials | None:
    from windlass_registry.credentials import DockerConfig, docker_config

    return await asyncio.to_thread(DockerConfig(docker_config()).ask, host, reference)


class Shown:
    """Turns what a daemon says of a transfer into progress, and each thing it says once."""

    def __init__(self, show: output.Progress) -> None:
        self._show = show
        self._last: dict[str, tuple[str, int, int]] = {}

    def __call__(self, progress: Progress) -> None:
        """Show a step."""
        state = (progress.event, progress.progress, progress.total)
        if self._last.get(progress.name) != state:
            self._last[progress.name] = state
            self._show(progress.event, progress.name, progress.progress, progress.total)


@click.command()
@click.argument("reference", metavar="IMAGE")
@platform_options("the machine's")
@click.option("--all-metadata", is_flag=True, help="Manifests and configs of every platform, layers of the chosen.")
@click.option("--snapshotter", default="", help="Snapshotter that layers are unpacked with.")
@click.option("--no-unpack", is_flag=True, help="Leave the layers packed.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label the image.")
@click.option(
    "--plan", is_flag=True, help="Contact no host; print which hosts a pull would ask, how, and what configures each."
)
@registry_options
@quiet_option
@as_json_option
@click.pass_obj
def pull(
    where: Where,
    /,
    reference: str,
    platform: tuple[str, ...],
    all_platforms: bool,
    all_metadata: bool,
    snapshotter: str,
    no_unpack: bool,
    label: tuple[str, ...],
    plan: bool,
    quiet: bool,
    as_json: bool,
    **options: Unpack[RegistryOptions],
) -> int | None:
    """Pull IMAGE, named with its registry, such as docker.io/library/busybox:1."""
    if plan:
        return show_plan(reference, options["hosts_dir"], options["anonymous"], options["plain_http"], as_json)

    async def work() -> None:
        from windlass.contracts.transfer import Stored, Unpack
        from windlass_client.namespaces import SNAPSHOTTER
        from windlass_images import platforms

        source = remote(reference, **options)
        wanted = wanted_platforms(platform, all_platforms, platforms.host())
        async with where.client() as client:
            chosen = await client.namespaces.default(SNAPSHOTTER, snapshotter)
            unpacks = () if no_unpack else tuple(Unpack(each, chosen) for each in wanted or (platforms.host(),))
            labels = dict(each.partition("=")[::2] for each in label)
            stored = Stored(
                reference, labels=labels, platforms=wanted or (), all_metadata=all_metadata, unpacks=unpacks
            )
            with output.progress(quiet or as_json) as show:
                async with client.lease(label="pull") as leased:
                    await leased.transfer.pull(source, stored, Shown(show))
            found = await client.images.get(reference)
        _print_pulled(found, quiet, as_json)

    asyncio.run(work())
    return None


def _print_pulled(image: Image, quiet: bool, as_json: bool) -> None:
    if as_json:
        output.document({"name": image.name, "digest": image.target.digest, "type": image.target.media_type})
        return
    name = output.printable(image.name)
    click.echo(name if quiet else f"pulled {name} {image.target.digest}")


def show_plan(reference: str, hosts_dir: str, anonymous: bool, plain_http: bool, as_json: bool) -> int:
    """Print what a pull would do, by the files of this machine; return 1 if it would not get far."""
    from windlass_registry import plan
    from windlass_registry.client import CERTS_D, roots_of
    from windlass_registry.credentials import DockerConfig, docker_config

    roots = roots_of(hosts_dir) if hosts_dir else CERTS_D
    docker = None if anonymous else DockerConfig(docker_config())
    made = plan.make(reference, roots, docker, "http" if plain_http else "")
    if as_json:
        output.document(dataclasses.asdict(made))
        return 0 if made.usable else 1
    lines = [f"{made.reference}", *(f"  looked in {directory}" for directory in made.looked_in)]
    for number, step in enumerate(made.steps, 1):
        lines.append(f"  {number}. {step.url}  ({step.place})")
        lines.append(f"     asked to {' and '.join(step.asked_for) or 'do nothing: it is passed over'}")
        lines.append(f"     TLS: {step.tls}")
        lines += [f"     proxy: {step.proxy}"] if step.proxy else []
        lines += [f"     headers: {', '.join(step.headers)}"] if step.headers else []
        lines.append(f"     credentials: {step.credentials}")
    lines += [f"  ! {problem}" for problem in made.problems]
    click.echo("\n".join(map(output.printable, lines)))
    return 0 if made.usable else 1


@click.command()
@click.argument("reference", metavar="REMOTE")
@click.argument("name", metavar="[IMAGE]", default="")
@platform_options("all that the image has")
@registry_options
@quiet_option
@as_json_option
@click.pass_obj
def push(
    where: Where,
    /,
    reference: str,
    name: str,
    platform: tuple[str, ...],
    all_platforms: bool,
    quiet: bool,
    as_json: bool,
    **options: Unpack[RegistryOptions],
) -> None:
    """Push IMAGE, or the image that is called so, to REMOTE, a name with a registry."""

    async def work() -> None:
        from windlass.contracts.transfer import Stored

        destination = remote(reference, **options)
        local = name or reference
        wanted = wanted_platforms(platform, all_platforms, None)
        async with where.client() as client:
            found = await client.images.get(local)
            with output.progress(quiet or as_json) as show:
                async with client.lease(label="push") as leased:
                    await leased.transfer.push(Stored(local, platforms=wanted or ()), destination, Shown(show))
        if as_json:
            output.document({"name": local, "remote": reference, "digest": found.target.digest})
        else:
            shown = output.printable(reference)
            click.echo(shown if quiet else f"pushed {shown} {found.target.digest}")

    asyncio.run(work())
