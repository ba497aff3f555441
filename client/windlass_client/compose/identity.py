"""Labels of what belongs to a project, the same as those of docker compose, and the hash that says what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from windlass import __version__
from windlass_client.compose.model import Network, Project, Service, Volume

PREFIX = "com.docker.compose."
PROJECT = f"{PREFIX}project"
SERVICE = f"{PREFIX}service"
NUMBER = f"{PREFIX}container-number"
ONE_OFF = f"{PREFIX}oneoff"
HASH = f"{PREFIX}config-hash"
IMAGE = f"{PREFIX}image"
DEPENDS_ON = f"{PREFIX}depends_on"
FILES = f"{PREFIX}project.config_files"
DIRECTORY = f"{PREFIX}project.working_dir"
VERSION = f"{PREFIX}version"
NETWORK = f"{PREFIX}network"
VOLUME = f"{PREFIX}volume"


def container_labels(project: Project, service: Service, number: int, digest: str, one_off: bool) -> dict[str, str]:
    """Return the labels of a container: the service's own, and those by which it is found again."""
    waits = (f"{name}:{each.condition}:{str(each.restart).lower()}" for name, each in service.depends_on.items())
    return {
        **service.labels,
        PROJECT: project.name,
        SERVICE: service.name,
        NUMBER: str(number),
        ONE_OFF: str(one_off),
        HASH: config_hash(project, service),
        IMAGE: digest,
        DEPENDS_ON: ",".join(waits),
        FILES: ",".join(map(str, project.files)),
        DIRECTORY: str(project.directory),
        VERSION: __version__,
    }


def network_labels(project: str, network: Network) -> dict[str, str]:
    """Return the labels of a network."""
    return {**network.labels, NETWORK: network.key, PROJECT: project, VERSION: __version__}


def volume_labels(project: str, volume: Volume) -> dict[str, str]:
    """Return the labels of a volume."""
    return {**volume.labels, VOLUME: volume.key, PROJECT: project, VERSION: __version__}


def container_name(project: Project, service: Service, number: int) -> str:
    """Return the name of a service's container."""
    return service.container_name or f"{project.name}-{service.name}-{number}"


def config_hash(project: Project, service: Service) -> str:
    """Return a hash of all that a container is made from, but for its image, which has a label of its own.

    What says only when, or how many of it, are made is left out: a change of that needs no new container.
    """
    made = replace(service, build=None, pull_policy="", replicas=1, profiles=(), depends_on={})
    content = {key: value for key, value in asdict(made).items() if key != "at"}
    content["networks"] = {project.networks[name].name: asdict(each) for name, each in service.networks.items()}
    content["volumes"] = [
        project.volumes[each.source].name for each in service.mounts if each.kind == "volume" and each.source
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_of(labels: Mapping[str, str], project: str) -> bool:
    """Tell whether labels are those of something of a project."""
    return labels.get(PROJECT) == project
