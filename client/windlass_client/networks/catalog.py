"""The networks of this host: conflists in CNI's directory, and ours in a directory of their own below it.

Ours are not in CNI's directory itself, because a kubelet's runtime takes the first file there as the network of pods.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_cni.config import SUFFIXES, Json, Network, Object, load

CONF_DIR = Path("/etc/cni/net.d")
BIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
OURS = "windlass"
"""The directory of our networks, and the key of a conflist with what we know of one."""
REMEDY = "apt install containernetworking-plugins"


@dataclass(frozen=True)
class Found:
    """A network and the file that it is in."""

    path: Path
    network: Network

    @property
    def document(self) -> Object:
        """The whole of the file, with what is not CNI's."""
        document: Json = json.loads(self.network.source)
        return document if isinstance(document, Mapping) else {}

    @property
    def ours(self) -> bool:
        """Whether `windlass network create` made it."""
        return self.path.parent.name == OURS


@dataclass(frozen=True)
class Catalog:
    """Where networks and plugins are."""

    conf_dir: Path = CONF_DIR
    bin_dirs: Sequence[Path] = BIN_DIRS

    @property
    def own(self) -> Path:
        """The directory of our networks."""
        return self.conf_dir / OURS

    def path(self, name: str) -> Path:
        """Return the file of a network of ours."""
        return self.own / f"{name}.conflist"

    def files(self) -> Iterator[Path]:
        """Yield the files of all networks, ours first."""
        for directory in (self.own, self.conf_dir):
            if directory.is_dir():
                yield from sorted(each for each in directory.iterdir() if _is_conf(each))

    def all(self) -> tuple[list[Found], list[Error]]:
        """Return all networks, and what is wrong with the files that hold none; of two of one name the first counts."""
        found: dict[str, Found] = {}
        problems: list[Error] = []
        for path in self.files():
            try:
                network = load(path)
                found.setdefault(network.name, Found(path, network))
            except Error as error:
                problems.append(error)
            except OSError as error:
                problems.append(FailedPrecondition(f"network configuration {path} cannot be read: {error.strerror}"))
        return list(found.values()), problems

    def get(self, name: str) -> Found:
        """Return a network. Raises NotFound, and the error of its own file."""
        path = self.path(name)
        try:
            return Found(path, load(path))
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a null byte
            pass
        for each in self.all()[0]:
            if each.network.name == name:
                return each
        raise NotFound(f'network "{name}" does not exist; `windlass network ls` lists those that do')

    def missing(self, networks: Sequence[Network]) -> list[str]:
        """Return the plugins that networks need and that are not installed."""
        wanted = {plugin.type for network in networks for plugin in network.plugins}
        wanted |= {str(ipam["type"]) for network in networks for ipam in _ipams(network) if "type" in ipam}
        return sorted(name for name in wanted if not any((each / name).is_file() for each in self.bin_dirs))

    def check_installed(self, networks: Sequence[Network]) -> None:
        """Raise FailedPrecondition that names the plugins that are missing, and the remedy."""
        if missing := self.missing(networks):
            places = ", ".join(map(str, self.bin_dirs))
            several = "s" if len(missing) > 1 else ""
            raise FailedPrecondition(
                f"CNI plugin{several} {', '.join(missing)} not found in {places}; install with `{REMEDY}`, "
                "or use --network none or --network host"
            )


def _is_conf(path: Path) -> bool:
    return path.suffix in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _ipams(network: Network) -> Iterator[dict[str, object]]:
    for plugin in network.plugins:
        ipam = plugin.conf.get("ipam")
        if isinstance(ipam, dict):
            yield ipam
