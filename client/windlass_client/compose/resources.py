"""Reads what services share: networks, volumes, and the files that are secrets and configs."""

from __future__ import annotations

from pathlib import Path

from windlass_client.compose import keys, parts
from windlass_client.compose.fields import Fields, flag
from windlass_client.compose.model import DEFAULT_NETWORK, Network, Volume
from windlass_client.compose.values import Section, section, wrong


def networks(project: Fields, name: str) -> dict[str, Network]:
    """Return the networks of a project, the default one among them."""
    found = {DEFAULT_NETWORK: Network(DEFAULT_NETWORK, f"{name}_{DEFAULT_NETWORK}")}
    for key, path, value in project.named("networks"):
        found[key] = _network(key, parts.fields(value, path, keys.NETWORK, keys.NETWORK_REFUSED), name)
    return found


def _network(key: str, given: Fields, project: str) -> Network:
    external, name = _external(given, key, project)
    ipam = parts.nested(given, "ipam", keys.IPAM, keys.IPAM_REFUSED)
    ipam.choice("driver", ("default", ""), "")
    pools = [parts.fields(value, path, keys.POOL, keys.POOL_REFUSED) for path, value in ipam.sections("config")]
    gateways = [pool.text("gateway") for pool in pools if "gateway" in pool]
    return Network(
        key,
        name,
        external,
        given.text("driver"),
        given.mapping("driver_opts"),
        given.flag("internal"),
        tuple(pool.text("subnet") for pool in pools),
        gateways[0] if gateways else "",
        given.mapping("labels"),
    )


def volumes(project: Fields, name: str) -> dict[str, Volume]:
    """Return the volumes of a project."""
    found = {}
    for key, path, value in project.named("volumes"):
        given = parts.fields(value, path, keys.VOLUME)
        external, real = _external(given, key, name)
        options, labels = given.mapping("driver_opts"), given.mapping("labels")
        found[key] = Volume(key, real, external, given.text("driver"), options, labels)
    return found


def files(project: Fields, kind: str, directory: Path) -> dict[str, str]:
    """Return the paths of the secrets, or of the configs."""
    found = {}
    for key, path, value in project.named(kind):
        given = parts.fields(value, path, keys.SECRET, keys.SECRET_REFUSED)
        if "file" not in given:
            raise wrong(value, path, "needs the path of a file; name it under file")
        found[key] = parts.located(given.text("file"), directory)
    return found


def _external(given: Fields, key: str, project: str) -> tuple[bool, str]:
    """Return whether others made it, and its name outside of the project."""
    if "external" not in given:
        return False, given.text("name") or f"{project}_{key}"
    value = given.entry("external")
    if isinstance(value, Section):
        # the form of the first versions: external: {name: NAME}
        return True, Fields(section(value, given.at("external")), given.at("external")).text("name") or key
    external = flag(value, given.at("external"))
    if external and any(each in given for each in ("driver", "driver_opts", "labels", "ipam", "internal")):
        raise wrong(value, given.at("external"), "others made it, so only its name can be here; remove the other keys")
    return external, given.text("name") or (key if external else f"{project}_{key}")
