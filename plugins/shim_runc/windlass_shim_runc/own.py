"""Our own OCI runtime, in the process of the shim: a container's init is a fork of it, and no program is executed.

Whatever is rare is done by its executable, as for any other OCI runtime.
"""

from __future__ import annotations

import json
import os

from windlass.errors import DeadlineExceeded, Error, NotFound
from windlass_oci_runtime import cgroups, changing, ending
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry
from windlass_oci_runtime.report import Failure
from windlass_oci_runtime.state import STOPPED, Container
from windlass_shim_runc.commandline import TIMEOUT, CommandLine
from windlass_shim_runc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from windlass_shim_runc.loop import Flag
    from windlass_shim_runc.messages import Options
    from windlass_shim_runc.shim import Shim

NAME = "windlass-oci"


class Own(CommandLine):
    """A container that is made in this process."""

    def __init__(self, shim: Shim, id: str, bundle: str, options: Options) -> None:
        super().__init__(shim, id, bundle, options)
        # A worker's own children would lose their parent with it; the keeper's do not.
        self._siblings = shim.pid != os.getpid()
        self._container = Container(self.root, id)

    async def create(self, stdio: Mapping[int, int], console: str) -> int:
        """Make init."""
        creation = Creation(self.root, self.id, self._bundle)
        return await self._made("create", creation, stdio, console)

    async def exec(self, exec_id: str, spec: bytes, stdio: Mapping[int, int], console: str) -> int:
        """Make a process that joins."""
        return await self._made("exec", Entry(self._container, json.loads(spec)), stdio, console)

    async def _made(self, verb: str, making: Creation | Entry, stdio: Mapping[int, int], console: str) -> int:
        try:
            making.spawn(stdio, console, self._siblings)
            await self.loop.readable(making.report, TIMEOUT)
            return making.settle()
        except Failure as error:
            making.undo()
            raise Error(f"OCI runtime {verb} failed: unable to start container process: {error}") from error
        except TimeoutError as error:
            os.kill(making.pid, SIGKILL)
            making.undo()
            raise DeadlineExceeded(f"OCI runtime {verb} of {self.id} did not end in {TIMEOUT:.0f} s") from error
        except BaseException:
            making.undo()
            raise

    async def start(self, exited: Flag) -> None:
        """Let init go on; hooks may take their time in a process of their own."""
        if self._has_hooks("poststart"):
            await super().start(exited)
            return
        try:
            self._container.start()
        except OSError as error:
            raise Error(f"OCI runtime start failed: init of {self.id} ended before it was started") from error

    async def kill(self, number: int, all: bool) -> None:
        """Send a signal."""
        ending.kill(self._container, number, all)

    async def pause(self) -> None:
        """Freeze all processes."""
        await self._pause(True)

    async def resume(self) -> None:
        """Thaw all processes."""
        await self._pause(False)

    async def _pause(self, frozen: bool) -> None:
        for _ in changing.pausing(self._container, frozen):
            await self.loop.sleep(cgroups.PAUSE)

    async def update(self, resources: bytes) -> None:
        """Set limits."""
        try:
            changing.update(self._container, json.loads(resources))
        except OSError as error:
            raise Error(f"OCI runtime update failed: {error.filename}: {error.strerror}") from error

    async def delete(self) -> None:
        """Forget a container; hooks may take their time in a process of their own."""
        if self._has_hooks("poststop"):
            await super().delete()
            return
        try:
            ending.delete(self._container)
        except NotFound:
            return

    async def abandon(self) -> None:
        """Remove what is left of a creation, which has undone most of it."""
        try:
            if self._container.status(self._container.read()) != STOPPED:
                ending.kill(self._container, SIGKILL, True)
        except NotFound:
            self._container.remove()
            return
        ending.delete(self._container, True)

    def _has_hooks(self, point: str) -> bool:
        try:
            return bool(self._container.read()["hooks"].get(point))
        except NotFound:
            return False

    def forget(self) -> bool:
        """Forget a container whose processes have ended."""
        ending.delete(self._container)
        return True
