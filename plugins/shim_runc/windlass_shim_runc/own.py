"""Our own OCI runtime, in the process of the shim: a container's init is a fork of it, and no program is executed."""

from __future__ import annotations

import encodings.ascii  # noqa: F401 -- or every process would import it anew, to read small files
import json
import os

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, NotFound, Unimplemented
from windlass_linux import calls as linux
from windlass_linux import sealing
from windlass_linux.cgroups import groups_of, hierarchies
from windlass_oci_runtime import cgroups, changing, ending, steps
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry
from windlass_oci_runtime.report import MOST, Failure, about, heard, reason
from windlass_oci_runtime.state import Container
from windlass_shim_runc import disk, kept
from windlass_shim_runc.commandline import TIMEOUT, CommandLine
from windlass_shim_runc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from windlass_shim_runc.loop import Flag
    from windlass_shim_runc.messages import CheckpointTaskRequest, Options
    from windlass_shim_runc.shim import Shim

NAME = "windlass-oci"
ANOTHER = "containers that are to be checkpointed need runc (runtime io.containerd.runc.v2)"

IS_SEALED = sealing.is_own_sealed()
"""Whether a container finds nothing of the host's that it could write behind /proc/PID/exe."""
UNSEALED = "the shim runs from a Python that a container could write to; it needs overlayfs or memfd_create(2)"

hierarchies()  # or every worker would read the mount table anew


class Own(CommandLine):
    """A container that is made in this process."""

    def __init__(self, shim: Shim, id: str, bundle: str, options: Options) -> None:
        super().__init__(shim, id, bundle, options)
        # A worker's own children would lose their parent with it; the keeper's do not.
        self._siblings = shim.pid != os.getpid()
        self._container = Container(self.root, id)

    async def create(self, stdio: Mapping[int, int], console: str) -> int:
        """Make init."""
        if self._options.no_pivot_root:
            raise Unimplemented(f"OCI runtime {NAME} changes the root by pivot_root(2) only; leave out NoPivotRoot")
        has_keyring = not self._options.no_new_keyring

        def make() -> Creation:
            return Creation(self.root, self.id, self._bundle, has_keyring)

        pid = await self._made("create", make, stdio, console)
        # By which what cleans up, and fsck, know the container's process, whatever made it.
        disk.write(f"{self._bundle}/init.pid", b"%d" % pid)
        return pid

    async def exec(self, exec_id: str, spec: bytes, stdio: Mapping[int, int], console: str) -> int:
        """Make a process that joins."""
        return await self._made("exec", lambda: Entry(self._container, json.loads(spec)), stdio, console)

    async def _made(
        self, verb: str, make: Callable[[], Creation | Entry], stdio: Mapping[int, int], console: str
    ) -> int:
        making: Creation | Entry | None = None
        try:
            if not IS_SEALED:
                raise FailedPrecondition(UNSEALED)
            making = make()
            making.spawn(stdio, console, self._siblings)
            await self.loop.readable(making.report, TIMEOUT)
            return making.settle()
        except TimeoutError as error:
            self._undo(making)
            raise DeadlineExceeded(f"OCI runtime {verb} of {self.id} did not end in {TIMEOUT:.0f} s") from error
        except Failure as error:
            self._undo(making)
            why = f"unable to start container process: {error}"
            raise Error(f"OCI runtime {verb} failed: {about(self.id, why)}") from error
        except Error as error:
            self._undo(making)
            raise type(error)(f"OCI runtime {verb} failed: {about(self.id, str(error))}") from error
        except (OSError, ValueError) as error:
            self._undo(making)
            raise Error(f"OCI runtime {verb} failed: {about(self.id, reason(error))}") from error

    def _undo(self, making: Creation | Entry | None) -> None:
        if making is not None:
            if making.pid:
                kill_process(making.pid)
            making.undo()

    async def restore(self, stdio: Mapping[int, int], console: str, checkpoint: str) -> int:
        """Refuse: criu's images are made by runc and crun."""
        raise Unimplemented(f"OCI runtime {NAME} cannot restore {self.id} from a checkpoint; {ANOTHER}")

    async def checkpoint(self, request: CheckpointTaskRequest) -> str:
        """Refuse."""
        raise Unimplemented(f"OCI runtime {NAME} cannot write a checkpoint of {self.id}; {ANOTHER}")

    async def start(self, exited: Flag) -> None:
        """Let init go on; hooks may take their time in a process of their own."""
        try:
            if self._has_hooks("poststart"):
                await self._apart("start", ending.start)
            else:
                self._container.start()
        except OSError as error:
            raise Error(f"OCI runtime start failed: init of {self.id} ended before it was started") from error

    async def kill(self, number: int, all: bool) -> None:
        """Send a signal."""
        ending.kill(self._container, number, all)

    async def pause(self) -> None:
        """Freeze the container's control group."""
        await self._freeze(frozen=True)

    async def resume(self) -> None:
        """Thaw it."""
        await self._freeze(frozen=False)

    async def _freeze(self, frozen: bool) -> None:
        for _ in changing.pausing(self._container, frozen):
            await self.loop.sleep(cgroups.PAUSE)

    async def update(self, resources: bytes) -> None:
        """Change the limits of the container's control group."""
        try:
            changing.update(self._container, json.loads(resources))
        except Error as error:
            raise type(error)(f"OCI runtime update failed: {error}") from error
        except (OSError, ValueError) as error:
            raise Error(f"OCI runtime update failed: {reason(error)}") from error

    async def delete(self) -> None:
        """Forget a container; hooks may take their time in a process of their own."""
        try:
            if self._has_hooks("poststop"):
                await self._apart("delete", ending.delete)
                return
            for _ in ending.deleting(self._container):
                await self.loop.sleep(ending.PAUSE)
        except NotFound:
            return

    async def abandon(self) -> None:
        """Remove what is left of a creation, which has undone most of it."""
        if problem := end(self.root, self.id, self._bundle):
            raise Error(problem)

    async def _apart(self, verb: str, do: Callable[[Container], None]) -> None:
        """Do something that takes its time in a process, which ends with this one."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
            if not pid:
                run_apart(lambda: do(self._container), writer)
            os.close(writer)
            await self.loop.readable(reader, TIMEOUT)
            heard(os.read(reader, MOST))
        except Failure as error:
            raise Error(f"OCI runtime {verb} of {self.id} failed: {error}") from error
        except TimeoutError as error:
            os.kill(pid, SIGKILL)
            raise DeadlineExceeded(f"OCI runtime {verb} of {self.id} did not end in {TIMEOUT:.0f} s") from error
        finally:
            os.close(reader)

    def _has_hooks(self, point: str) -> bool:
        try:
            return bool(self._container.read()["hooks"].get(point))
        except NotFound:
            return False

    def forget(self) -> bool:
        """Forget a container whose processes have ended; False when one still does."""
        try:
            return next(ending.deleting(self._container), True) is True
        except NotFound:
            return True


def kill_process(pid: int) -> None:
    """Kill a process that is not finished; one that has ended is fine."""
    try:
        os.kill(pid, SIGKILL)
    except ProcessLookupError:
        return


def run_apart(do: Callable[[], None], pipe: int) -> NoReturn:
    """In a process of its own: do something, and say into ``pipe`` why that failed."""
    begin = lambda: linux.prctl(linux.PR_SET_PDEATHSIG, SIGKILL)  # noqa: E731
    steps.run(iter((("", begin), ("", do), ("", lambda: os._exit(0)))), pipe)


def end(root: str, id: str, bundle: str) -> str:
    """Kill and forget a container, also one that is half made; return why not all of it is gone, "" when it is."""
    container = Container(root, id)
    if kept.is_anothers(container.directory, bundle):
        return ""
    try:
        ending.abandon(container, groups_of(kept.read(f"{bundle}/config.json"), id))
    except (OSError, Error, Failure) as error:
        return f"cannot remove container {id}: {reason(error)}"
    return ""
