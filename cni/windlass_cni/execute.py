"""Executes one CNI plugin: JSON in, JSON out, within a deadline (CNI specification, section 2)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, Unknown
from windlass_cni.config import Json, Object
from windlass_cni.orphans import PARENT

OUTPUT_LIMIT = 4 << 20
"""Bytes that a plugin may print; a result with thousands of routes is far smaller."""
ERROR_LIMIT = 32 << 10
TRY_AGAIN = 11
"""The error code of a plugin that may work a moment later."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's end of a network: its ID, the path of its network namespace, and the interface in it.

    ``netns`` is empty when the namespace is gone: plugins then free what they can.
    """

    container: str
    netns: str
    interface: str
    args: tuple[tuple[str, str], ...] = ()
    """CNI_ARGS, in order."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where plugins are, and how long one may take in seconds."""

    directories: tuple[Path, ...] = (Path("/opt/cni/bin"),)
    timeout: float = 120.0

    def find(self, name: str) -> Path:
        """Return the program of a plugin. Raises FailedPrecondition with the directories that lack it."""
        for directory in self.directories:
            path = directory / name
            if path.is_file() and os.access(path, os.X_OK):
                return path
        places = ", ".join(map(str, self.directories)) or "no directory"
        raise FailedPrecondition(f"CNI plugin {name} is not in {places}; install it there or set bin_dirs")

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
                env=self._environment(command, attachment),
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
        if len(output) > OUTPUT_LIMIT:
            raise Unknown(f"CNI plugin {name} printed more than {OUTPUT_LIMIT} bytes at {command}")
        if code:
            raise failure(name, command, code, output, errors)
        return output

    def _environment(self, command: str, attachment: Attachment | None) -> dict[str, str]:
        environment = {**os.environ, "CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, self.directories))}
        environment[PARENT] = str(os.getpid())
        # A plugin that is asked for VERSION, STATUS or GC must not take over what we were started with.
        for key in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"):
            environment.pop(key, None)
        if attachment is not None:
            environment |= {
                "CNI_CONTAINERID": attachment.container,
                "CNI_NETNS": attachment.netns,
                "CNI_IFNAME": attachment.interface,
                "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args),
            }
        return environment


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


def failure(name: str, command: str, code: int, output: bytes, errors: bytes) -> Error:
    """Return the error of a plugin that ended with ``code``: its own words, or what it printed."""
    document = _object(output)
    if document is not None and isinstance(document.get("msg"), str):
        details = document.get("details")
        text = f"{document['msg']}: {details}" if details else str(document["msg"])
        reason = f"{text} (code {document.get('code')})"
    else:
        printed = (errors or output).decode(errors="replace").strip()
        ended = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        reason = f"{ended}: {printed[-1000:]}" if printed else ended
    return Unknown(f"CNI plugin {name} failed at {command}: {_one_line(reason)}")


def result_of(name: str, command: str, output: bytes) -> Mapping[str, Json]:
    """Parse what a plugin printed. Raises Unknown for what is not a JSON object."""
    document = _object(output)
    if document is None:
        shown = _one_line(output[:200].decode(errors="replace"))
        raise Unknown(f"CNI plugin {name} printed no JSON object at {command}: {shown!r}")
    return document


def _object(output: bytes) -> Mapping[str, Json] | None:
    try:
        document: Json = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, Mapping) else None


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def joined(problems: Sequence[Error]) -> Error:
    """Return one error for several, of the class of the first."""
    return problems[0] if len(problems) == 1 else type(problems[0])("; ".join(map(str, problems)))
