"""Steps for each service, side by side, in the order of dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set

from windlass_client.compose.model import Service
from windlass_client.compose.order import needs


async def in_order(
    services: Mapping[str, Service], step: Callable[[str], Awaitable[None]], backwards: bool = False
) -> None:
    """Run a step for each service once it is done for those that it needs; ``backwards``, for those that need it.

    The first failure ends all others, and is raised.
    """
    before = _needed_by(services) if backwards else {name: needs(each) for name, each in services.items()}
    done = {name: asyncio.Event() for name in services}

    async def run(name: str) -> None:
        for other in before[name]:
            if other in done:
                await done[other].wait()
        await step(name)
        done[name].set()

    await together(run(name) for name in services)


async def together(steps: Iterable[Awaitable[None]]) -> None:
    """Run steps side by side; the first failure ends all others, and is raised by itself."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _needed_by(services: Mapping[str, Service]) -> Mapping[str, Set[str]]:
    return {name: {other for other, each in services.items() if name in needs(each)} for name in services}
