"""CRI is imported when it is needed, and says beforehand what it serves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from windlass.contracts import rpc
from windlass.errors import Unavailable
from windlass_api.runtime.v1.api_pb2 import DESCRIPTOR
from windlass_cri.service import MISSING, CriService
from windlass_cri.services.images import ImageService
from windlass_cri.services.runtime import RuntimeService

if TYPE_CHECKING:
    from windlass.contracts.metadata import Metadata
    from windlass_cri.runtime import CriRuntime


@pytest.mark.parametrize("service", [RuntimeService, ImageService])
def test_what_is_said_to_be_missing_is(service: type[object]) -> None:
    """Else a client would get an internal error where it should get UNIMPLEMENTED."""
    methods = [method.name for method in DESCRIPTOR.services_by_name[service.__name__].methods]
    missing = {name for name in methods if not rpc.is_implemented(service, name)}
    assert missing == MISSING[service.__name__]


def test_registering_imports_none_of_it() -> None:
    """A daemon without a kubelet pays for the descriptors alone."""
    code = "import sys, windlass_cri.plugin, windlass_cri.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert not [
        name for name in loaded if name.startswith(("windlass_cri.runtime", "windlass_streaming", "h11", "wsproto"))
    ]


class Slow:
    """As much of CRI as its start: it takes a moment, and may fail."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.done: list[str] = []

    async def start(self) -> None:
        await asyncio.sleep(0.1)
        self.done.append("started")
        if self.problem:
            raise Unavailable(self.problem)

    async def stop(self) -> None:
        self.done.append("stopped")


def service_of(*runtimes: Slow) -> CriService:
    coming = iter(runtimes)
    make = cast("Callable[[], CriRuntime]", lambda: next(coming))
    return CriService(make, cast("Metadata", None), Path("/nonexistent"))


async def test_a_first_client_that_leaves_does_not_end_the_start() -> None:
    """Else half of it would stay, and the next client would start another beside it."""
    only = Slow()
    service = service_of(only)
    first = asyncio.ensure_future(service._service("ImageService"))
    await asyncio.sleep(0.02)
    first.cancel()
    assert isinstance(await service._service("RuntimeService"), RuntimeService)
    await service.stop()
    assert only.done == ["started", "stopped"]


async def test_a_start_that_fails_is_undone_and_tried_again() -> None:
    bad, good = Slow("no address"), Slow()
    service = service_of(bad, good)
    with pytest.raises(Unavailable, match="no address"):
        await service._service("RuntimeService")
    assert bad.done == ["started", "stopped"]
    assert isinstance(await service._service("ImageService"), ImageService)
    assert good.done == ["started"]


async def test_a_daemon_that_stops_meanwhile_leaves_nothing() -> None:
    only = Slow()
    service = service_of(only)
    waiting = asyncio.ensure_future(service._service("RuntimeService"))
    await asyncio.sleep(0.05)
    await service.stop()
    assert only.done == ["stopped"]
    with pytest.raises(asyncio.CancelledError):
        await waiting
