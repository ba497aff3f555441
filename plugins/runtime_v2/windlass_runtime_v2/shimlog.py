"""What shims have to say: the FIFO ``log`` in a bundle, whose lines the daemon logs (docs/containerd 4.3).

No shim writes to the daemon's own standard error: it outlives the daemon, and a program that
reads the daemon's output by a pipe would wait for the shim's end too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat

from windlass_runtime_v2.bundle import Bundle

logger = logging.getLogger(__name__)

NAME = "log"
MOST_CHUNKS = 16
LOG_CHUNK = 16 << 10


class ShimLog:
    """Copies what a shim writes to the ``log`` FIFO of its bundle to the daemon's log."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the FIFO, made if it is not there; a shim waits in its open until there is a reader. This is file work.

        For writing too, so that there is no end of file: a shim's ``start`` may try twice.
        Raises OSError, also for what is not a FIFO.
        """
        path = bundle.path / NAME
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._id = bundle.id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(self._descriptor).st_mode):
            self.close()
            raise FileExistsError(errno.EEXIST, "not a FIFO", str(path))

    def follow(self) -> None:
        """Log what comes from now on; for use on the loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._copy)

    def _copy(self) -> bool:
        """Log what there is; False when that is nothing."""
        try:
            data = os.read(self._descriptor, LOG_CHUNK)
        except BlockingIOError:
            return False
        for line in data.decode(errors="replace").splitlines():
            logger.info("shim of task %s: %s", self._id, line)
        return True

    def close(self) -> None:
        """Log the rest, at most what the FIFO holds, and stop reading; may be called twice."""
        if self._descriptor < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            for _ in range(MOST_CHUNKS):
                if not self._copy():
                    break
        os.close(self._descriptor)
        self._descriptor = -1
