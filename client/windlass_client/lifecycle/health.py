"""Finds out a container's health by running its command inside, again and again, as long as the container runs.

The program that keeps the log starts this one, so that a container that the daemon restarts is watched, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from dataclasses import dataclass, field

from windlass.contracts.containers import Container
from windlass.errors import Error, NotFound
from windlass_client import datadir
from windlass_client.client import Client
from windlass_client.datadir import DataDirectory
from windlass_client.lifecycle import asked as askings
from windlass_client.lifecycle import healthfile
from windlass_client.lifecycle.healthcheck import HealthCheck
from windlass_client.logs.jsonfile import now
from windlass_client.namespace import ClientNamespace
from windlass_local import fifos
from windlass_local.pump import Pump
from windlass_oci.payloads import PROCESS, spec_of, to_payload

KEPT = 5
OUTPUT = 4096
"""docker keeps as much of a check's output."""
TIMED_OUT = -1
LOOKS = 300


@dataclass
class Watch:
    """Health of one task."""

    client: Client
    namespace: ClientNamespace
    data: DataDirectory
    container: Container
    check: HealthCheck
    pid: int
    _status: str = "starting"
    _streak: int = 0
    _log: list[healthfile.Health] = field(default_factory=list)

    async def run(self) -> None:
        """Check until the task has gone."""
        begun = asyncio.get_running_loop().time()
        self._write()
        while True:
            starting = asyncio.get_running_loop().time() - begun < self.check.start_period
            waits = min(self.check.interval, self.check.start_interval) if starting else self.check.interval
            await asyncio.sleep(waits if self._status == "starting" else self.check.interval)
            start = now()
            code, output = await self._probe()
            self._take(code, starting)
            self._log = [*self._log, {"Start": start, "End": now(), "ExitCode": code, "Output": output}][-KEPT:]
            self._write()

    def _take(self, code: int, starting: bool) -> None:
        if code == 0:
            self._status, self._streak = "healthy", 0
        elif not (starting and self._status == "starting"):
            self._streak += 1
            if self._streak >= self.check.retries:
                self._status = "unhealthy"

    def _write(self) -> None:
        with contextlib.suppress(Error, OSError):
            healthfile.write(self.data, self.container.id, self.pid, self._status, self._streak, self._log)

    async def _probe(self) -> tuple[int, str]:
        exec_id = f"health-{secrets.token_hex(4)}"
        process = {**spec_of(self.container)["process"], "args": list(self.check.command), "terminal": False}
        directory = datadir.directory(self.data.container(self.container.id) / "health")
        with fifos.make(exec_id, stdin=False, terminal=False, parent=str(directory)) as streams:
            tasks, id = self.namespace.tasks, self.container.id
            try:
                await tasks.exec(id, exec_id, to_payload(PROCESS, process), streams.io)
            except NotFound:
                raise
            except Error as error:
                return 1, str(error)
            try:
                return await self._finish(exec_id, streams)
            finally:
                with contextlib.suppress(Error):
                    await tasks.delete_exec(id, exec_id)

    async def _finish(self, exec_id: str, streams: fifos.Fifos) -> tuple[int, str]:
        tasks, id = self.namespace.tasks, self.container.id
        output = bytearray()

        def keep(data: bytes) -> bytes:
            output.extend(data[: max(0, OUTPUT - len(output))])
            return b""  # all is read, so that a check that writes much does not wait

        pumps = [Pump(fifo, -1, fifo, intercept=keep) for fifo in map(streams.take, ("stdout", "stderr"))]
        try:
            code = await self._end(exec_id)
            for pump in pumps:
                await pump.drained()
        except TimeoutError:
            await tasks.kill(id, 9, exec_id)
            return TIMED_OUT, f"Health check exceeded timeout ({self.check.timeout:g}s)"
        except Error as error:
            return 1, str(error)
        finally:
            for pump in pumps:
                pump.close()
        return code, output[:OUTPUT].decode(errors="replace")

    async def _end(self, exec_id: str) -> int:
        """Start a check and return its exit code. Raises TimeoutError."""
        tasks, id = self.namespace.tasks, self.container.id
        async with asyncio.timeout(self.check.timeout):
            waiting = asyncio.ensure_future(tasks.wait(id, exec_id))
            try:
                await tasks.start(id, exec_id)
                return (await waiting).status
            finally:
                waiting.cancel()


async def watch(address: str, namespace: str, id: str) -> None:
    """Watch a container's health until its task has gone."""
    async with Client(address, namespace) as client:
        names = ClientNamespace(client)
        container = await names.containers.get(id)
        check = askings.of(container).health
        if not check:
            return
        pid = await _first_process(names, id)
        data = DataDirectory.of(client.connection)
        await Watch(client, names, data, container, check, pid).run()


async def _first_process(names: ClientNamespace, id: str) -> int:
    """Return the pid of a task that is being created. Raises NotFound if it does not come."""
    for _ in range(LOOKS):
        with contextlib.suppress(NotFound):
            if pid := (await names.tasks.get(id)).pid:
                return pid
        await asyncio.sleep(0.1)
    raise NotFound(f"container {id} has no task")


if __name__ == "__main__":
    with contextlib.suppress(Error):
        asyncio.run(watch(*sys.argv[1:4]))
