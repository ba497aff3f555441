"""Executes one CNI plugin: JSON in, JSON out, within a deadline (CNI specification, section 2)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import DeadlineExceeded, FailedPrecondition
from windlass_cni.config import Object
from windlass_cni.orphans import PARENT
from windlass_cni.protocol import ERROR_LIMIT, OUTPUT_LIMIT, Attachment, answer, environment, find


@dataclass(frozen=True, slots=True)
class Programs:
    """Where plugins are, and how long one may take in seconds."""

    directories: tuple[Path, ...] = (Path("/opt/cni/bin"),)
    timeout: float = 120.0

    def find(self, name: str) -> Path:
        """Return the program of a plugin. Raises as `protocol.find`."""
        return find(self.directories, name)

    async def run(self, command: str, name: str, conf: Object, attachment: Attachment | None = None) -> bytes:
        """Execute a plugin and return what it printed.

        Raises FailedPrecondition for a plugin that is not there, DeadlineExceeded, and Unknown with what the plugin
        says is wrong. A plugin that does not end is killed, with what it has started in its session.
        """
        program = self.find(name)
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**environment(self.directories, command, attachment), PARENT: str(os.getpid())},
                start_new_session=True,
            )
        except OSError as error:
            raise FailedPrecondition(f"CNI plugin {program} cannot be executed: {error.strerror}") from None
        try:
            async with asyncio.timeout(self.timeout):
                output, errors, code = await _talk(process, json.dumps(conf).encode())
        except BaseException as error:
            await _end(process)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"CNI plugin {name} did not end {command} within {self.timeout:g} s") from None
            raise
        return answer(name, command, code, output, errors)


async def _talk(process: asyncio.subprocess.Process, document: bytes) -> tuple[bytes, bytes, int]:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None and stdout is not None and stderr is not None  # they were asked for
    reading = asyncio.gather(_read(stdout, OUTPUT_LIMIT + 1), _read(stderr, ERROR_LIMIT))
    try:
        stdin.write(document)
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # a plugin may fail before it reads
    stdin.close()
    output, errors = await reading
    return output, errors, await process.wait()


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Return the beginning of a stream; what is more is read and dropped, so that the writer can end."""
    kept = bytearray()
    while data := await stream.read(64 << 10):
        kept += data[: limit - len(kept)]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what still runs of the plugin's session, and reap the plugin."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    await process.wait()
