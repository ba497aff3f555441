"""The options of `windlass run` about networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar

import click

if TYPE_CHECKING:
    from windlass_client.networks.options import NetworkOptions

C = TypeVar("C", bound=Callable[..., object])

VARIABLE = "WINDLASS_NETWORK"


class NetworkOptionValues(TypedDict):
    """The options as click reads them."""

    net_host: bool
    network: tuple[str, ...]
    network_alias: tuple[str, ...]
    ip: str
    ip6: str
    mac_address: str
    publish: tuple[str, ...]
    publish_all: bool
    dns: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_option: tuple[str, ...]
    add_host: tuple[str, ...]


OPTIONS = (
    click.option(
        "--network",
        "--net",
        multiple=True,
        envvar=VARIABLE,
        metavar="NAME|host|none|container:NAME",
        help=f"Attach it to a network; bridge without the option, or what {VARIABLE} says.",
    ),
    click.option("--net-host", is_flag=True, help="The same as --network host."),
    click.option(
        "-p",
        "--publish",
        multiple=True,
        metavar="[IP:]HOST:CONTAINER[/udp]",
        help="Publish a port or a range.",
    ),
    click.option("-P", "--publish-all", is_flag=True, help="Publish what the image exposes at free ports."),
    click.option(
        "--network-alias", "--net-alias", multiple=True, metavar="NAME", help="Another name of it in its networks."
    ),
    click.option("--ip", default="", metavar="ADDRESS", help="Its IPv4 address."),
    click.option("--ip6", default="", metavar="ADDRESS", help="Its IPv6 address."),
    click.option("--mac-address", default="", metavar="MAC", help="The MAC address of its first interface."),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="Ask this name server instead of the host's."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Look names up in this domain."),
    click.option("--dns-option", "--dns-opt", multiple=True, metavar="OPTION", help="An option for resolv.conf."),
    click.option("--add-host", multiple=True, metavar="NAME:ADDRESS", help="Add to /etc/hosts; also host-gateway."),
)


def network_options(command: C) -> C:
    """Add the options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read(options: NetworkOptionValues) -> NetworkOptions:
    """Return what the options ask for. Raises InvalidArgument as `NetworkOptions.check`."""
    from windlass_client.networks.options import NetworkOptions

    # The variable is for a command line that names no network.
    networks = options["network"]
    if options["net_host"]:
        networks = (*(networks if _given("network") else ()), "host")
    return NetworkOptions(
        networks=tuple(dict.fromkeys(networks)),
        aliases=options["network_alias"],
        ips=tuple(each for each in (options["ip"], options["ip6"]) if each),
        mac=options["mac_address"],
        publish=options["publish"],
        publish_all=options["publish_all"],
        dns=options["dns"],
        dns_search=options["dns_search"],
        dns_options=options["dns_option"],
        add_hosts=options["add_host"],
    )


def _given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE
