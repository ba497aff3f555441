"""The verifier: executes what lies in a directory, each program with a deadline and so much to say.

Source: docs/containerd 2.2.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from pathlib import Path

from windlass.contracts.values import Descriptor
from windlass.contracts.verifiers import ImageVerifier, Judgement
from windlass.errors import DeadlineExceeded, FailedPrecondition
from windlass.typing import override

logger = logging.getLogger(__name__)

OUTPUT_LIMIT = 32 << 10
"""Bytes of standard output, which is the reason, and of standard error, which is logged."""
DESCRIPTOR = "application/vnd.oci.descriptor.v1+json"


class BinDir(ImageVerifier):
    """Verifies by the programs of a directory, which it reads each time."""

    def __init__(self, directory: Path, most: int, timeout: float) -> None:
        """Execute at most ``most`` programs, -1 is all of them, each for at most ``timeout`` seconds."""
        self.configure(directory, most, timeout)

    def configure(self, directory: Path, most: int, timeout: float) -> None:
        """Judge the next images by other programs, or within other bounds."""
        self._directory = directory
        self._most = most
        self._timeout = timeout

    @override
    async def verify(self, name: str, desc: Descriptor) -> Judgement:
        """Ask every program; the first that objects decides. Raises FailedPrecondition, DeadlineExceeded."""
        reasons = []
        for program in self._programs():
            judgement = await self._ask(program, name, desc)
            if not judgement.ok:
                return judgement
            reasons.append(judgement.reason)
        return Judgement(True, "; ".join(reasons) or f"no verifier in {self._directory}")

    def _programs(self) -> list[Path]:
        try:
            found = sorted(path for path in self._directory.iterdir() if not path.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FailedPrecondition(f"verifiers in {self._directory} cannot be listed: {error.strerror}") from None
        if 0 <= self._most < len(found):
            left = len(found) - self._most
            logger.warning("%d verifiers in %s are not asked, max_verifiers is %d", left, self._directory, self._most)
            return found[: self._most]
        return found

    async def _ask(self, program: Path, name: str, desc: Descriptor) -> Judgement:
        arguments = ["-name", name, "-digest", desc.digest, "-stdin-media-type", DESCRIPTOR]
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                program, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise FailedPrecondition(f"verifier {program} cannot be executed: {error.strerror}") from None
        try:
            async with asyncio.timeout(self._timeout):
                output, errors = await _talk(process, _document(desc))
                code = await process.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"verifier {program} did not end within {self._timeout:g} s") from None
        finally:
            await _end(process)
        if errors:
            logger.debug("verifier %s: %s", program, errors)
        return Judgement(code == 0, f"{program.name} => {output or f'exit status {code}'}")


async def _talk(process: asyncio.subprocess.Process, document: bytes) -> tuple[str, str]:
    """Send the document; return what the program says, cut short. What is more is read and dropped."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None and stdout is not None and stderr is not None  # they were asked for
    try:
        stdin.write(document)
        await stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it need not read what it is sent
    stdin.close()
    output, errors = await asyncio.gather(_text(stdout), _text(stderr))
    return output, errors


async def _text(stream: asyncio.StreamReader) -> str:
    kept = b""
    while data := await stream.read(OUTPUT_LIMIT):
        kept += data[: OUTPUT_LIMIT - len(kept)]
    text = kept.decode(errors="replace")
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is still running, with its children, and reap it."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()


def _document(desc: Descriptor) -> bytes:
    document: dict[str, object] = {"mediaType": desc.media_type, "digest": desc.digest, "size": desc.size}
    if desc.annotations:
        document["annotations"] = dict(desc.annotations)
    return json.dumps(document).encode()
