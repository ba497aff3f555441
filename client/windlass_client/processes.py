"""The processes of a container, as the machine's `ps` describes them."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass_client import lookup

if TYPE_CHECKING:
    from windlass_client.client import Client

TIMEOUT = 30.0


async def top(client: Client, word: str, arguments: Sequence[str]) -> list[list[str]]:
    """Return the lines of `ps` about a container's processes, each as cells, the heading first.

    Raises NotFound, FailedPrecondition for a container that does not run, InvalidArgument for bad ``arguments``.
    """
    container = await lookup.container(client, word)
    try:
        pids = {each.pid for each in await client.tasks.pids(container.id)}
    except (NotFound, FailedPrecondition):
        pids = set()
    if not pids:
        raise FailedPrecondition(f"container {word} is not running; start it with `windlass start {word}`")
    return select(await asyncio.to_thread(_ps, arguments or ("-ef",)), pids)


def _ps(arguments: Sequence[str]) -> str:
    try:
        done = subprocess.run(["ps", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise FailedPrecondition("ps is not installed; apt-get install procps") from None
    except subprocess.TimeoutExpired:
        raise FailedPrecondition(f"ps did not end within {TIMEOUT:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or "no process was found"
        raise InvalidArgument(f"ps {' '.join(arguments)} failed: {said[:300]}")
    return done.stdout


def select(output: str, pids: set[int]) -> list[list[str]]:
    """Return the heading and the lines of some processes. Raises InvalidArgument if no column has the number."""
    lines = output.splitlines()
    heading = lines[0].split() if lines else []
    if "PID" not in heading:
        raise InvalidArgument("ps prints no column PID; choose options with which it does")
    at = heading.index("PID")
    found = [heading]
    for line in lines[1:]:
        # The last column may have spaces in it.
        cells = re.split(r"\s+", line.strip(), maxsplit=len(heading) - 1)
        if len(cells) > at and cells[at].isdigit() and int(cells[at]) in pids:
            found.append(cells)
    return found
