"""Programs that the specification has executed at points of a container's life, with its state on standard input."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from windlass.errors import InvalidArgument
from windlass_oci_runtime.clone import clone
from windlass_oci_runtime.report import Failure, tell
from windlass_oci_runtime.seclusion import keep_only

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypedDict

    Json = Mapping[str, object]

    class Hook(TypedDict, total=False):
        """A hook of the specification."""

        path: str
        args: list[str]
        env: list[str]
        timeout: int


MOST_SAID = 4096
"""Bytes of a hook's standard error that its failure repeats."""

PATIENCE = 600.0
"""Seconds for a hook that names none."""


def checked(hooks: Mapping[str, Sequence[Hook]]) -> Mapping[str, Sequence[Hook]]:
    """Return the hooks of a specification. Raises InvalidArgument for what it forbids."""
    for point, each in hooks.items():
        for number, hook in enumerate(each or ()):
            path = hook.get("path", "")
            if not path.startswith("/"):
                raise InvalidArgument(f"hooks.{point}[{number}].path {path[:80]!r} is not an absolute path")
            if hook.get("timeout", 1) <= 0:
                raise InvalidArgument(f"hooks.{point}[{number}].timeout {hook['timeout']} is not more than 0 seconds")
    return hooks


def run_all(point: str, hooks: Sequence[Hook], state: Json, environment: Sequence[str] | None = None) -> None:
    """Execute the hooks of a point, one after the other; those without an `env` get ``environment``, or ours.

    Raises Failure with the first that fails.
    """
    text = json.dumps(state).encode()
    for number, hook in enumerate(hooks):
        _run(f"{point} hook #{number}", hook, text, environment)


def run_each(point: str, hooks: Sequence[Hook], state: Json) -> list[Failure]:
    """Execute all hooks of a point, whatever becomes of them, and return the failures, to warn of."""
    text, failures = json.dumps(state).encode(), []
    for number, hook in enumerate(hooks):
        try:
            _run(f"{point} hook #{number}", hook, text, None)
        except Failure as failure:
            failures.append(failure)
    return failures


def _run(name: str, hook: Hook, state: bytes, environment: Sequence[str] | None) -> None:
    path = hook.get("path", "")
    given = os.memfd_create("state")
    said, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(given, state)
        os.lseek(given, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        words = hook.get("env", environment)
        variables = os.environ if words is None else dict(each.partition("=")[::2] for each in words)
        arguments = hook.get("args") or [path]
        # Python ignores SIGPIPE, and a hook would ever after.
        pid = os.posix_spawn(
            path, arguments, variables, file_actions=actions, setsigmask=(), setsigdef=(signal.SIGPIPE,)
        )
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
            left = deadline - time.monotonic()
            ready = dict(poll.poll(max(0.0, left) * 1000))
            # One that goes on talking is not spared either.
            if left <= 0 or not ready:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Failure(f"error running {name}", f"it did not end in {seconds:g} s, and was killed")
            if ready.get(said, 0) & select.POLLIN:
                text = (text + os.read(said, MOST_SAID))[-MOST_SAID:]
            elif ended in ready:
                break
            elif said in ready:
                poll.unregister(said)
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

    def __init__(self, hooks: Mapping[str, Sequence[Hook]]) -> None:
        """Stand between the namespaces and the root file system; ``hooks`` are those of the specification."""
        self._hooks = [(point, hooks[point]) for point in ("prestart", "createRuntime") if hooks.get(point)]
        self._arrived = self._go = (-1, -1)
        if self._hooks:
            self._arrived, self._go = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)

    def serve(self, state: Json, pipe: int) -> int:
        """In the runtime: begin the process that executes hooks for init, in the bundle, once that has arrived.

        Returns its pid, 0 for none; it has done its work when init goes on.
        """
        if not self._hooks or (pid := clone(0)):
            return pid if self._hooks else 0
        try:
            keep_only({self._arrived[0], self._go[1], pipe})
            if os.read(self._arrived[0], 1):
                os.chdir(str(state["bundle"]))
                for point, hooks in self._hooks:
                    run_all(point, hooks, state)
                os.write(self._go[1], b"1")
        except BaseException as error:  # noqa: BLE001 -- a copy of the runtime must not go on with the runtime's work
            tell(pipe, "", error)
        os._exit(0)

    def wait(self) -> None:
        """In init: wait for the hooks."""
        if self._hooks:
            os.write(self._arrived[1], b"1")
            if not os.read(self._go[0], 1):
                os._exit(1)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What init needs of it, -1 for none."""
        return self._arrived[1], self._go[0]

    def close(self) -> None:
        """In the runtime: leave it to the two."""
        for descriptor in (*self._arrived, *self._go):
            if descriptor >= 0:
                os.close(descriptor)
