"""The network of a rootless daemon: a program of the host's that carries it, or the host's own network."""

from __future__ import annotations

import shutil
from pathlib import Path

from windlass.errors import StartError
from windlass.records import dataclass

HOST = "host"
KINDS = ("slirp4netns", HOST)
DEVICE = "tap0"
TUN = Path("/dev/net/tun")


@dataclass(frozen=True)
class Network:
    """How the daemon and its containers reach the world."""

    kind: str
    program: str = ""
    name_server: str = ""
    """What answers for names inside; "" leaves the host's resolv.conf."""

    @property
    def own(self) -> bool:
        """Whether there is a network namespace."""
        return self.kind != HOST

    def command(self, pid: int, ready: int, leave: int, api: Path) -> list[str]:
        """Return the command that serves the namespaces of a process until the descriptor ``leave`` is closed."""
        options = ["--configure", "--mtu=65520", "--disable-host-loopback", f"--api-socket={api}"]
        return [self.program, *options, f"--ready-fd={ready}", f"--exit-fd={leave}", str(pid), DEVICE]


def choose(wanted: str = "") -> Network:
    """Return the network asked for, or the best that is installed. Raises StartError for one that is not there."""
    for kind in [wanted] if wanted else KINDS:
        if kind == HOST:
            return Network(HOST)
        if program := shutil.which(kind):
            return Network(kind, program, "10.0.2.3")
    raise StartError(f"{wanted} is not installed; apt-get install {wanted}, or choose --network host")
