"""What has gone through the network interfaces of pods, read in their network namespaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from windlass.records import dataclass
from windlass_linux import netns

TABLE = "/proc/thread-self/net/dev"


@dataclass(frozen=True, slots=True)
class Interface:
    """What has gone through a network interface."""

    name: str
    received: int = 0
    received_packets: int = 0
    receive_errors: int = 0
    receive_drops: int = 0
    sent: int = 0
    sent_packets: int = 0
    send_errors: int = 0
    send_drops: int = 0


def read_interfaces(path: str = TABLE) -> list[Interface]:
    """Return the interfaces of this thread's network namespace but for loopback."""
    found = []
    for line in Path(path).read_text().splitlines()[2:]:
        name, _, values = line.partition(":")
        numbers = [int(each) for each in values.split()]
        if name.strip() != "lo":
            # Each half is bytes, packets, errors, drops, and four that nothing here shows (proc_pid_net(5)).
            found.append(Interface(name.strip(), *numbers[:4], *numbers[8:12]))
    return found


def of_namespaces(paths: Iterable[str]) -> Mapping[str, list[Interface]]:
    """Return the interfaces of each network namespace; one that is gone is left out. Blocks for milliseconds."""
    found: dict[str, list[Interface]] = {}
    netns.within_each([Path(each) for each in paths], lambda path: found.update({str(path): read_interfaces()}))
    return found
