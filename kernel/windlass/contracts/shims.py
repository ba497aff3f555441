"""Contract: a shim that ships as a plugin and is forked from the zygote instead of executed."""

from __future__ import annotations

from collections.abc import Callable

from windlass.plugin import PluginType
from windlass.records import dataclass

CLEAN = b"done"
"""A shim's ``cleanup`` writes this when nothing is left."""


@dataclass(frozen=True, slots=True)
class ForkedShim:
    """Says which runtimes a shim serves and where its code is.

    ``entry`` is called in a child of the zygote as ``entry(arguments,
    descriptors)``. Arguments: bundle directory, namespace, container ID, the
    daemon's grpc address, its ttrpc address, its log level. The shim
    must make the FIFO ``log`` in the bundle its standard error: while it has the
    daemon's, a process that reads the daemon's output by a pipe waits for the
    shim's end. Descriptors: a listening unix socket on which to serve
    ``containerd.task.v3.Task`` and ``v2.Task`` over ttrpc. The daemon makes the
    socket, so that no client waits for it, and removes its file.

    ``cleanup`` is called in the same way when a shim has died, with bundle
    directory, namespace, container ID, the seconds after which it is killed, and
    a pipe: it ends the container's processes, has the OCI runtime forget the
    container, unmounts the rootfs, and writes `CLEAN` into the pipe, also when there was nothing left to do.
    If something is left, it writes the reason. After a reason, or an end without a word, the daemon calls it
    again later, with more time.
    Without one the daemon can only unmount and delete.

    ``describe`` is given a runtime's options, an encoded Any or nothing, and returns an encoded
    ``containerd.types.RuntimeInfo`` (docs/containerd 4.5). It is called in a thread, and raises ValueError for options
    that it cannot read.

    ``program`` is the name of an executable that does the same for daemons without a zygote; where it is installed its
    path is left in the bundle, for a daemon that takes over.
    """

    runtimes: tuple[str, ...]
    entry: str
    preload: tuple[str, ...] = ()
    cleanup: str = ""
    describe: Callable[[bytes], bytes] | None = None
    program: str = ""


FORKED_SHIM: PluginType[ForkedShim] = PluginType("io.windlass.shim.v1", ForkedShim)
