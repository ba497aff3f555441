"""Everything that is looked at, in the order in which it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from windlass_client.doctor import daemon, linux, networking, registries, tools
from windlass_client.doctor.findings import Area, Finding


def examine(places: daemon.Places, names: Sequence[str]) -> list[Finding]:
    """Look at everything; ``names`` are the registries to ask."""
    parts: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("linux", linux.findings),
        ("programs", tools.findings),
        ("network", networking.findings),
        ("daemon", lambda: daemon.findings(places)),
        ("registries", lambda: registries.findings(names)),
    ]
    return [found for name, look in parts for found in _whole(name, look)]


def _whole(area: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of an area; one that cannot be looked at does not hide the others."""
    try:
        yield from look()
    except OSError as error:
        reason = f"{error.filename or 'system'}: {error.strerror or error}"
        yield Area(area).warning("the rest", f"could not be looked at: {reason}", "run it again as root, with sudo")
