"""What a client does with a daemon's transfers, in a process of its own: the tests' process forks, which gRPC forbids.

    PYTHONPATH=tests python -m compat.transferring SOCKET NAMESPACE round-trip|give-up|leave|nonsense|take [ARCHIVE]

Prints a JSON document.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

from images.archives import Receiver, Sender

from windlass.contracts.transfer import ExtraReference, Stored
from windlass.errors import Error, NotFound
from windlass_client.client import Client


async def round_trip(address: str, namespace: str, _: str) -> object:
    """Export an image, delete it, and import it again under two names."""
    events: list[str] = []
    async with Client(address, namespace) as client:
        out = Receiver()
        async with client.lease() as leased:
            await leased.transfer.export(["example.org/thing:1"], out, report=lambda step: events.append(step.event))
        await client.images.delete("example.org/thing:1", sync=True)
        blobs = len(await client.content.list())
        prefix = ExtraReference("example.org/thing", is_prefix=True, add_digest=True)
        async with client.lease() as leased:
            await leased.transfer.import_(Sender(bytes(out.data)), Stored(extra_references=(prefix,)))
        more = len(await client.content.list()) - blobs
        names = sorted(found.name for found in await client.images.list() if "thing" in found.name)
    return {"names": names, "events": events, "blobs": more}


async def give_up(address: str, namespace: str, archive: str, leave: bool = False) -> object:
    """Cancel an import in the middle of a blob, or go away; return what is left of it."""
    sender = Sender(Path(archive).read_bytes()[:700_000], end="hangs")
    client = Client(address, namespace)
    importing = asyncio.create_task(client.transfer.import_(sender, Stored("given/up:1")))
    await asyncio.wait_for(sender.waiting.wait(), 10)
    await asyncio.sleep(0.2)
    if leave:
        await client.connection.close()
    importing.cancel()
    await asyncio.gather(importing, return_exceptions=True)
    await client.connection.close()
    async with Client(address, namespace, timeout=5) as other, asyncio.timeout(20):
        while await other.leases.list():
            await asyncio.sleep(0.05)
        left = [status.ref for status in await other.content.statuses()]
        try:
            await other.images.get("given/up:1")
        except NotFound:
            return left
    return "the image"


async def leave(address: str, namespace: str, archive: str) -> object:
    """Go away in the middle of a blob."""
    return await give_up(address, namespace, archive, leave=True)


async def nonsense(address: str, namespace: str, _: str) -> object:
    """Send what is no archive; return what is said to that."""
    async with Client(address, namespace) as client:
        try:
            await client.transfer.import_(Sender(b"<html>" * 10_000), Stored("none:1"))
        except Error as error:
            return f"{type(error).__name__}: {error}"
    return "nothing"


async def take(address: str, namespace: str, archive: str) -> object:
    """Import an archive; return what is said to it, and how many new clients were answered meanwhile."""
    answered = 0
    async with Client(address, namespace) as client:
        sender = Sender(Path(archive).read_bytes())
        taking = asyncio.create_task(client.transfer.import_(sender, Stored("taken/it:1")))
        while not taking.done():
            async with Client(address, namespace, timeout=5) as other:
                await other.version()
                answered += not taking.done()
            await asyncio.sleep(0.1)
        try:
            await taking
        except Error as error:
            return {"said": f"{type(error).__name__}: {error}", "answered": answered}
    return {"said": "taken", "answered": answered}


if __name__ == "__main__":
    verbs: dict[str, Callable[[str, str, str], Coroutine[None, None, object]]] = {
        "round-trip": round_trip,
        "give-up": give_up,
        "leave": leave,
        "nonsense": nonsense,
        "take": take,
    }
    what = verbs[sys.argv[3]]
    sys.stdout.write(json.dumps(asyncio.run(what(sys.argv[1], sys.argv[2], "".join(sys.argv[4:])))))
