"""A daemon that creates, starts and deletes without end, for `test_runtime_v2.py` to kill at any moment.

Arguments: the test's directory, a tag for the names, and how many work at a time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from runtime_v2.harness import SPEC_TYPE, daemon, event_sink

from windlass.contracts.containers import Container
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import CreateOptions, Tasks
from windlass.contracts.values import Payload
from windlass.errors import Error
from windlass_shim_runc import plugin as shim_plugin
from windlass_zygote.spawner import ForkingZygote

PROGRAM = os.environ.get("WINDLASS_TEST_RUNTIME") or shim_plugin.RUNC


async def work(tasks: Tasks, base: Path, tag: str, worker: int) -> None:
    """Run containers one after the other."""
    spec = (base / "spec.json").read_bytes()
    options = Payload("containerd.runc.v1.Options", (base / "options").read_bytes())
    count = 0
    while True:
        count += 1
        id = f"{tag}-{worker}-{count}"
        made = Container(id, "io.containerd.runc.v2", options, Payload(SPEC_TYPE, spec.replace(b"NAME", id.encode())))
        try:
            mount = Mount("bind", str(base / "image"), ("rbind", "rw"))
            await tasks.create("test", made, CreateOptions(rootfs=(mount,)))
            await tasks.start("test", id)
            await tasks.wait("test", id)
            await tasks.delete("test", id)
        except Error as error:
            sys.stderr.write(f"{id}: {error}\n")


async def main() -> None:
    """Work until killed."""
    base, tag, workers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    zygote, topics = ForkingZygote(), list[str]()
    async with (
        event_sink(str(base / "w.sock.ttrpc"), topics),
        daemon(base, zygote, {"runc": shim_plugin.shim_of(shim_plugin.RUNTIME, PROGRAM)}) as running,
    ):
        os.write(1, b"ready\n")
        await asyncio.gather(*(work(running.tasks, base, tag, worker) for worker in range(workers)))


if __name__ == "__main__":
    asyncio.run(main())
