"""`windlass network`: the networks that containers are attached to."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Group, Where

if TYPE_CHECKING:
    from windlass_client.networks.catalog import Catalog
    from windlass_client.networks.members import Registry


@click.group(cls=Group)
@click.option(
    "--cni-conf-dir",
    envvar="NETCONFPATH",
    default="/etc/cni/net.d",
    show_default=True,
    help="Directory of networks; ours are below it.",
)
@click.option(
    "--cni-path",
    envvar="CNI_PATH",
    default="/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni",
    show_default=True,
    help="Directories of CNI plugins.",
)
@click.pass_context
def network(context: click.Context, cni_conf_dir: str, cni_path: str) -> None:
    """Make, list and remove networks of containers."""
    from windlass_client.networks import settings

    context.meta["catalog"] = settings.catalog({"NETCONFPATH": cni_conf_dir, "CNI_PATH": cni_path})


def _catalog() -> Catalog:
    catalog: Catalog = click.get_current_context().meta["catalog"]
    return catalog


def _registry() -> Registry:
    from windlass_client.datadir import host_networks
    from windlass_client.networks.members import Registry

    return Registry(host_networks() / "attached")


@network.command()
@click.argument("name")
@click.option("-d", "--driver", default="bridge", show_default=True, help="bridge, macvlan or ipvlan.")
@click.option("--subnet", multiple=True, metavar="10.5.0.0/24", help="Its addresses; a free subnet otherwise.")
@click.option("--gateway", multiple=True, metavar="ADDRESS", help="The host's address in it; the first otherwise.")
@click.option("--ip-range", multiple=True, metavar="10.5.0.128/25", help="Give containers addresses of this part only.")
@click.option("--internal", is_flag=True, help="Let containers reach each other and nothing outside.")
@click.option("--ipv6", is_flag=True, help="Give IPv6 addresses, too.")
@click.option("-o", "--opt", multiple=True, metavar="KEY=VALUE", help="bridge, mtu, vlan; parent and mode of macvlan.")
@click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label it.")
def create(
    name: str,
    driver: str,
    subnet: tuple[str, ...],
    gateway: tuple[str, ...],
    ip_range: tuple[str, ...],
    internal: bool,
    ipv6: bool,
    opt: tuple[str, ...],
    label: tuple[str, ...],
) -> None:
    """Make a network and print its ID."""
    from windlass_client.networks.create import Wish, create
    from windlass_client.networks.views import View

    options = dict(each.partition("=")[::2] for each in opt)
    labels = dict(each.partition("=")[::2] for each in label)
    wish = Wish(name, driver, subnet, gateway, ip_range, internal, ipv6, options, labels)
    click.echo(View(name, create(_catalog(), wish)).id)


@network.command()
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="name, id, driver, label, type.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="A template, table TEMPLATE, or json.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def ls(quiet: bool, filters: tuple[str, ...], form: str, no_trunc: bool, as_json: bool) -> None:
    """List networks: ours, and those that others have put in CNI's directory."""
    from windlass_client import format, output
    from windlass_client.networks import views

    found, problems = views.all_views(_catalog())
    for problem in problems:
        sys.stderr.write(f"windlass: {problem}\n")
    rows = [{**each.row(), **({"ID": each.id} if no_trunc else {})} for each in views.select(found, filters)]
    if quiet:
        for row in rows:
            click.echo(row["ID"])
    elif as_json:
        output.document(rows)
    else:
        format.rows(rows, {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE"}, form)


@network.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A template for each network.")
def inspect(names: tuple[str, ...], form: str) -> int:
    """Print all that is known about networks, as JSON, with the containers in them."""
    from windlass_client import listing
    from windlass_client.networks import views

    catalog, registry = _catalog(), _registry()

    def find(name: str) -> object:
        found = views.view(catalog, name)
        return found.document(views.attached(registry, found.name))

    return listing.inspect(names, find, form)


@network.command()
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Do not fail if there is no such network.")
def rm(names: tuple[str, ...], force: bool) -> int:
    """Remove networks that no running container is attached to."""
    from windlass_client import listing
    from windlass_client.networks.remove import remove
    from windlass_client.networks.views import view

    catalog, registry = _catalog(), _registry()

    async def one(name: str) -> None:
        remove(catalog, registry, view(catalog, name))

    return asyncio.run(listing.each(names, one, force))


@network.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those with this label.")
@click.pass_obj
def prune(where: Where, force: bool, filters: tuple[str, ...]) -> None:
    """Remove networks that no container has, and collect what removed containers have left."""
    from windlass_client import asking
    from windlass_client.networks import views
    from windlass_client.networks.prune import prune

    asking.confirm(force, "This will remove all networks not used by at least one container.", "network prune")
    catalog, registry = _catalog(), _registry()
    found = views.select(views.all_views(catalog)[0], filters)

    async def work() -> list[str]:
        async with where.client() as client:
            return await prune(client, catalog, registry, found)

    gone = asyncio.run(work())
    if gone:
        click.echo("\n".join(["Deleted Networks:", *gone]))


@network.command()
@click.argument("name")
@click.argument("container")
@click.option("--alias", multiple=True, metavar="NAME", help="Another name of the container in this network.")
@click.option("--ip", default="", metavar="ADDRESS", help="Its IPv4 address.")
@click.option("--ip6", default="", metavar="ADDRESS", help="Its IPv6 address.")
@click.pass_obj
def connect(where: Where, name: str, container: str, alias: tuple[str, ...], ip: str, ip6: str) -> None:
    """Attach CONTAINER to the network NAME, too."""
    from windlass_client.networks.connect import connect

    async def work() -> None:
        async with where.client() as client:
            await connect(client, name, container, alias, tuple(each for each in (ip, ip6) if each))

    asyncio.run(work())


@network.command()
@click.argument("name")
@click.argument("container")
@click.pass_obj
def disconnect(where: Where, name: str, container: str) -> None:
    """Detach CONTAINER from the network NAME."""
    from windlass_client.networks.connect import disconnect

    async def work() -> None:
        async with where.client() as client:
            await disconnect(client, name, container)

    asyncio.run(work())
