"""A process that joins namespaces, and makes another in them that is seen there only when it is there whole.

A process that joins the PID namespace first shows those inside the host's root at /proc/PID/root, until it has joined
the mount namespace. So the stage stays in the host's PID namespace, and its sibling is the container's.
"""

from __future__ import annotations

import os

from windlass_oci_runtime import vfork
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.steps import attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from windlass_oci_runtime.steps import Steps


class Stage:
    """One such process, and what it makes."""

    def __init__(self, writer: int, sibling: bool, group: int) -> None:
        """``writer`` takes its failure; the other arguments are `clone`'s, for the process that it makes."""
        self._writer = writer
        self.sibling = sibling
        self.group = group
        self._pid = 0

    def run(self, steps: Steps) -> int:
        """Do the steps, the last of which is `leave`, in the stage; return the pid of what it has made, 0 if nothing.

        The rules of `vfork.run` hold for each of them. Raises OSError.
        """
        pid = vfork.run(lambda: attempt(steps, self._writer), self.sibling)
        if not self.sibling:
            os.waitpid(pid, 0)
        return self._pid

    def leave(self, process: Callable[[], NoReturn], flags: int) -> None:
        """In the stage: make the process with ``flags`` of clone3(2)."""
        self._pid = clone(flags, sibling=True, cgroup=self.group)
        if not self._pid:
            if self.group >= 0:
                os.close(self.group)
            process()
