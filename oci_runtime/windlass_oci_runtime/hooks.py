"""Programs that the specification has executed at points of a container's life, with its state on standard input."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.report import Failure, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Json = Mapping[str, Any]

MOST_SAID = 4096
"""Bytes of a hook's standard error that its failure repeats."""

PATIENCE = 600.0
"""Seconds for a hook that names none."""


def run_all(point: str, hooks: Sequence[Json], state: Json) -> None:
    """Execute the hooks of a point, one after the other. Raises Failure with the first that fails."""
    text = json.dumps(state).encode()
    for number, hook in enumerate(hooks):
        _run(f"{point} hook #{number}", hook, text)


def _run(name: str, hook: Json, state: bytes) -> None:
    path = hook.get("path", "")
    given = os.memfd_create("state")
    said, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        variables = dict(each.partition("=")[::2] for each in hook.get("env") or ())
        pid = os.posix_spawn(path, hook.get("args") or [path], variables, file_actions=actions, setsigmask=())
        os.close(writer)
        writer = -1
        _await(name, pid, said, hook.get("timeout") or PATIENCE)
    except OSError as error:
        raise Failure(f"error running {name}", f"{path}: {(error.strerror or '').lower()}") from None
    finally:
        for descriptor in (given, said, writer):
            if descriptor >= 0:
                os.close(descriptor)


def _await(name: str, pid: int, said: int, seconds: float) -> None:
    """Wait for a hook's end, and read what it says meanwhile, so that it never waits for us."""
    deadline, text = time.monotonic() + seconds, b""
    ended = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(said, select.POLLIN)
        while True:
            ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Failure(f"error running {name}", f"it did not end in {seconds:g} s, and was killed")
            if said in ready:
                text = (text + os.read(said, MOST_SAID))[-MOST_SAID:] if ready[said] & select.POLLIN else text
                if not ready[said] & select.POLLIN:
                    poll.unregister(said)
            elif ended in ready:
                break
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        how = f"exit status {code}" if code > 0 else f"signal {-code}"
        raise Failure(f"error running {name}", f"{how}, its output: {text.decode(errors='replace').strip()}")


class Gate:
    """Where init waits until the hooks that the runtime executes have succeeded.

    A process of its own executes them, so who makes the container can do other things meanwhile. It reports a failure
    in init's place; init ends without a word when nobody lets it go on.
    """

    __slots__ = ("_arrived", "_go", "_hooks")

    def __init__(self, hooks: Mapping[str, Sequence[Json]]) -> None:
        """Stand between the namespaces and the root file system; ``hooks`` are those of the specification."""
        self._hooks = [(point, hooks[point]) for point in ("prestart", "createRuntime") if hooks.get(point)]
        self._arrived = self._go = (-1, -1)
        if self._hooks:
            self._arrived, self._go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)

    def serve(self, state: Json, pipe: int) -> None:
        """In the runtime: begin the process that executes hooks for init, once that has arrived."""
        if not self._hooks or clone(0):
            return
        os.close(self._arrived[1])
        os.close(self._go[0])
        try:
            if os.read(self._arrived[0], 1):
                for point, hooks in self._hooks:
                    run_all(point, hooks, state)
                os.write(self._go[1], b"1")
        except BaseException as error:  # noqa: BLE001 -- a copy of the runtime must not go on with the runtime's work
            tell(pipe, "", error)
        os._exit(0)

    def wait(self) -> None:
        """In init: wait for the hooks."""
        if self._hooks:
            os.close(self._go[1])
            os.close(self._arrived[0])
            os.write(self._arrived[1], b"1")
            if not os.read(self._go[0], 1):
                os._exit(1)

    def close(self) -> None:
        """In the runtime: leave it to the two."""
        for descriptor in (*self._arrived, *self._go):
            if descriptor >= 0:
                os.close(descriptor)
