"""Two samples of a container as a row of docker's table."""

from __future__ import annotations

from dataclasses import dataclass

from windlass_client.format import size
from windlass_client.stats.reading import Reading

COLUMNS = {
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True)
class Named:
    """A container to be shown."""

    id: str
    name: str


def row(container: Named, before: Reading | None, now: Reading | None, truncate: bool = True) -> dict[str, object]:
    """Return what the table shows; dashes while it is not known, zeros for a container that does not run."""
    known = now or Reading()
    share = processor(before, now)
    memory = known.memory / known.limit * 100 if known.limit else 0.0
    return {
        "Container": container.name,
        "ID": container.id[:12] if truncate else container.id,
        "Name": container.name,
        "CPUPerc": f"{share:.2f}%" if share is not None else "--",
        "MemUsage": f"{binary(known.memory)} / {binary(known.limit)}" if now else "-- / --",
        "MemPerc": f"{memory:.2f}%" if now else "--",
        "NetIO": f"{size(known.received)} / {size(known.sent)}" if now else "-- / --",
        "BlockIO": f"{size(known.read)} / {size(known.written)}" if now else "-- / --",
        "PIDs": str(known.pids) if now else "--",
    }


def processor(before: Reading | None, now: Reading | None) -> float | None:
    """Return the share of one processor in percent, None while there is only one sample."""
    if before is None or now is None or now.at <= before.at:
        return None
    # A container that was started again counts from zero.
    return max(now.cpu - before.cpu, 0) / (now.at - before.at) / 1e7


def binary(count: float) -> str:
    """Return bytes in powers of 1024, such as ``1.5MiB``."""
    number = 0
    while count >= 1024 and number < len(UNITS) - 1:
        count /= 1024
        number += 1
    return f"{count:.4g}{UNITS[number]}"
