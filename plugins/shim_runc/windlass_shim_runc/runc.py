"""runc, as far as it can be spared: its start and its delete are done without executing it."""

# ruff: noqa: PTH108
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass.errors import DeadlineExceeded, Error
from windlass_shim_runc import forgetting, own
from windlass_shim_runc.commandline import CommandLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc.loop import Flag
    from windlass_shim_runc.messages import Options
    from windlass_shim_runc.oci import Runtime
    from windlass_shim_runc.shim import Shim

NAME = "runc"
START_TIMEOUT = 10.0


def runtime_of(shim: Shim, id: str, bundle: str, options: Options) -> Runtime:
    """Return the OCI runtime that the options name; raises InvalidArgument."""
    program = (options.binary_name or shim.program).rpartition("/")[2]
    # crun's exec.fifo works the other way round, so only runc's own is used.
    kind = KINDS.get(program, CommandLine)
    return kind(shim, id, bundle, options)


class Runc(CommandLine):
    """A program that is called runc."""

    @property
    def is_runc(self) -> bool:
        """See the base."""
        return True

    async def start(self, exited: Flag) -> None:
        """Do what ``runc start`` does: init waits in open(2) for a reader of the FIFO, writes one byte and goes on.

        Without the FIFO runc knows that the container runs.
        """
        fifo = f"{self.root}/{self.id}/exec.fifo"
        try:
            fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            await super().start(exited)
            return
        try:
            await self.loop.readable(fd, START_TIMEOUT, exited)
            if not os.read(fd, 1):
                raise Error(f"OCI runtime start failed: init of {self.id} ended before it was started")
        except BlockingIOError as error:
            raise Error(f"OCI runtime start failed: init of {self.id} ended before it was started") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"init of {self.id} did not answer the start in {START_TIMEOUT:.0f} s") from error
        finally:
            os.close(fd)
        os.unlink(fifo)

    def forget(self) -> bool:
        """Remove what runc keeps of a container without hooks."""
        # A program that only has the name may have more to do at the end.
        return self.program == NAME and not self.by_systemd and forgetting.forget(self.root, self.id)


KINDS: dict[str, type[CommandLine]] = {NAME: Runc, own.NAME: own.Own}
"""By the program's name: those that are not executed for everything."""
