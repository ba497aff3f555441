"""A pull ends when registries that are asked bring nothing: containerd's ``image_pull_progress_timeout``.

containerd takes every byte for progress (internal/cri/server/images/image_pull.go); here it has to be
16 KiB, or the end of what was wanted, since a byte now and then could hold a pull for months.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass.config import durations
from windlass.errors import DeadlineExceeded
from windlass_registry.meter import STEP, Meter

LOOK = 10.0
"""Seconds between looks, as containerd's."""


@asynccontextmanager
async def kept_moving(meter: Meter, limit: float, subject: str) -> AsyncIterator[None]:
    """Cancel what is done inside when nothing comes for ``limit`` seconds; 0 is without end. Raises DeadlineExceeded.

    Only the time counts in which a registry is asked, not that in which others download, or layers are unpacked.
    """
    if not limit:
        yield
        return
    try:
        async with asyncio.timeout(None) as deadline:
            watch = asyncio.create_task(_watch(meter, limit, deadline))
            try:
                yield
            finally:
                watch.cancel()
    except TimeoutError:
        if not deadline.expired():
            raise
        raise DeadlineExceeded(
            f"{subject}: its registry brought less than {STEP >> 10} KiB within {durations.write(limit)};"
            " image_pull_progress_timeout says how long that may take"
        ) from None


async def _watch(meter: Meter, limit: float, deadline: asyncio.Timeout) -> None:
    loop = asyncio.get_running_loop()
    mark, since = meter.mark(), loop.time()
    while True:
        await asyncio.sleep(min(LOOK, limit / 2))
        seen = meter.mark()
        if not seen.is_stalled_since(mark):
            mark, since = seen, loop.time()
        elif loop.time() - since > limit:
            deadline.reschedule(loop.time())
            return
