"""The addresses of the node's pods, as the kubelet says them, and the network made for them (docs/containerd 5.4)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from windlass.errors import Unknown
from windlass_cri.config import Cni
from windlass_cri.pods.network import PodNetwork
from windlass_cri.pods.templates import render

logger = logging.getLogger(__name__)

NAME = "10-containerd-net.conflist"
"""The file's name is containerd's, so that a node that had it has one network."""
DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
MOST = 1 << 20
_CIDR = re.compile(r"[0-9a-fA-F:.]+/[0-9]{1,3}")


async def update(network: PodNetwork, config: Cni, text: str) -> None:
    """Take the pods' addresses: write a network configuration, if there is a template for one and none has been given.

    Raises Unknown for addresses that are none, and for a template that cannot be used.
    """
    if not text:
        return
    cidrs = [each.strip() for each in text.split(",")]
    routes = routes_of(cidrs)
    if not config.conf_template or not await network.problem():
        return
    await network.reload()
    if network.networks:
        return  # what is there is read now, and goes before
    logger.info("a network for %s is made of %s", text, config.conf_template)
    await asyncio.to_thread(_write, Path(config.conf_template), Path(config.conf_dir), cidrs, routes)
    await network.reload()


def routes_of(cidrs: Sequence[str]) -> list[str]:
    """Return the default routes for blocks of addresses. Raises Unknown for one that is none."""
    return [DEFAULT_ROUTES[version] for version in sorted({_version(each) for each in cidrs})]


def _version(cidr: str) -> int:
    try:
        if _CIDR.fullmatch(cidr):
            return ipaddress.ip_network(cidr, strict=False).version
    except ValueError:
        pass
    raise Unknown(f"get routes: invalid CIDR address: {cidr[:100]}")


def _write(template: Path, directory: Path, cidrs: Sequence[str], routes: Sequence[str]) -> None:
    try:
        with template.open(encoding="utf-8") as source:
            text = render(source.read(MOST), {"PodCIDR": cidrs[0], "PodCIDRRanges": cidrs, "Routes": routes})
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=directory, prefix=f".{NAME}.", delete=False) as file:
            made = Path(file.name)
            file.write(text)
        made.chmod(0o644)
        made.rename(directory / NAME)
    except (OSError, ValueError) as error:
        raise Unknown(f'no network can be made of the template "{template}": {error}') from error
