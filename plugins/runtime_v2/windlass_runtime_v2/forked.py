"""Shims that are forked from the zygote: about two milliseconds from nothing to a connection."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from windlass.contracts.shims import CLEAN, ForkedShim
from windlass.contracts.zygote import Zygote
from windlass.errors import DeadlineExceeded, Error, InvalidArgument, Unavailable, Unimplemented
from windlass.gate import offload
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.runtimes import find_program
from windlass_runtime_v2.settings import Deadlines, ShimSettings
from windlass_runtime_v2.shim import Shim, connect, kill_process, process_ended
from windlass_runtime_v2.sockets import connect_unix, listen_unix

logger = logging.getLogger(__name__)

MAX_ANSWER = 4096


class ForkedShims:
    """Starts shims that ship as plugins, and cleans up after those that died."""

    def __init__(
        self, zygote: Zygote, shims: Mapping[str, ForkedShim], settings: ShimSettings, deadlines: Deadlines
    ) -> None:
        """Serve the runtimes that ``shims`` says."""
        self._zygote = zygote
        self._settings = settings
        self._deadlines = deadlines
        self._by_runtime = {runtime: shim for shim in shims.values() for runtime in shim.runtimes}
        self._programs = {shim.program: find_program(shim.program) for shim in shims.values() if shim.program}

    def serves(self, runtime: str) -> bool:
        """Return whether a runtime's shim can be forked."""
        return runtime in self._by_runtime

    def describe(self, runtime: str, options: bytes) -> bytes:
        """Return an encoded RuntimeInfo. Raises InvalidArgument, Unimplemented for a shim that does not say."""
        describe = self._by_runtime[runtime].describe
        if describe is None:
            raise Unimplemented(f"the shim of runtime {runtime} does not describe it")
        try:
            return describe(options)
        except ValueError as error:
            raise InvalidArgument(f"runtime {runtime}: {error}") from error

    def prepare(self, bundle: Bundle, runtime: str) -> tuple[Bootstrap, socket.socket]:
        """Make a shim's socket and write into the bundle how to reach it, before there is a shim.

        A daemon that is killed in between so leaves no shim that cannot be found.
        """
        # The time makes the name new, so a shim that is still ending cannot be in the way of its successor.
        seed = f"{self._settings.grpc_address}/{bundle.namespace}/{bundle.id}/{time.time_ns()}"
        path = self._settings.socket_dir / hashlib.sha256(seed.encode()).hexdigest()
        bootstrap = Bootstrap(f"unix://{path}", runtime=runtime)
        bundle.write_bootstrap(bootstrap)
        if program := self._programs.get(self._by_runtime[runtime].program):
            bundle.write_shim_binary(program)
        return bootstrap, listen_unix(path)

    async def start(self, bundle: Bundle, bootstrap: Bootstrap, listener: socket.socket) -> Shim:
        """Fork the shim and connect to it; takes over ``listener``. Raises Unavailable."""
        settings = self._settings
        addresses = (settings.grpc_address, settings.ttrpc_address)
        arguments = (str(bundle.path), bundle.namespace, bundle.id, *addresses, settings.log_level)
        entry = self._by_runtime[bootstrap.runtime].entry
        with listener:
            child = await offload(self._zygote.spawn, entry, arguments, [listener.fileno()], self._deadlines.spawn)
            try:
                return await connect(bootstrap, bundle.namespace, child.pidfd)
            except Error:
                # It would wait for half a minute for a connection.
                kill_process(child.pidfd)
                os.close(child.pidfd)
                raise

    async def clean(self, bundle: Bundle, runtime: str, seconds: float) -> None:
        """End what a dead shim has left running. Raises Error, with the reason, when not all of it is gone.

        The process that does that gets its deadline, and is killed when it goes on.
        """
        shim = self._by_runtime.get(runtime)
        if shim is None:
            raise Unavailable(f"no plugin serves runtime {runtime}; install the one that did")
        if not shim.cleanup:
            logger.warning("task %s: its shim, of runtime %s, has no cleanup: processes may run on", bundle.id, runtime)
            return
        arguments = (str(bundle.path), bundle.namespace, bundle.id, f"{seconds:g}")
        answer, reply = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            try:
                child = await offload(self._zygote.spawn, shim.cleanup, arguments, (reply,), self._deadlines.spawn)
            finally:
                os.close(reply)
            try:
                if not await process_ended(child.pidfd, seconds):
                    kill_process(child.pidfd)
                    raise DeadlineExceeded(f"cleaning up did not end within {seconds:g} s and was killed")
            finally:
                os.close(child.pidfd)
            if (found := _read(answer)) != CLEAN:
                raise Unavailable(found.decode(errors="replace") or "what cleans up was killed")
        finally:
            os.close(answer)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, MAX_ANSWER)
    except BlockingIOError:
        return b""


def list_sockets(directory: Path) -> list[Path]:
    """Return the sockets that there are."""
    return [path for path in directory.iterdir() if path.is_socket()]


def sweep_sockets(found: Iterable[Path]) -> None:
    """Delete those of an earlier daemon's sockets on which no process listens; one just being made looks the same."""
    for path in found:
        if not _answers(path):
            path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        try:
            connect_unix(peer, str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True
