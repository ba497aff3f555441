"""`windlass` against a machine's daemon, as a user types it."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

from compat.machines import Machine

from windlass_client.cli import main

WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
TIMEOUT = 60

OWN_STREAMS = ("run", "exec")
"""Commands that connect this process's own standard streams."""

Done = subprocess.CompletedProcess[bytes]


class Windlass:
    """The command line, for one daemon and one namespace."""

    def __init__(self, machine: Machine, home: Path) -> None:
        """Keep what is the user's own, such as logins, in ``home``."""
        self.machine = machine
        self.home = home
        self.environment = {
            **os.environ,
            "WINDLASS_ADDRESS": machine.address,
            "CONTAINERD_NAMESPACE": machine.namespace,
            "HOME": str(home),
            "DOCKER_CONFIG": str(home / ".docker"),
        }

    def try_(self, *arguments: str, data: bytes = b"") -> Done:
        """Run a command to its end, however that is."""
        return self._process(arguments, data) if arguments[0] in OWN_STREAMS else self._inside(arguments, data)

    def _inside(self, arguments: tuple[str, ...], data: bytes) -> Done:
        """Run a command in this process, which takes a third of the time."""
        output, errors = _text(), _text()
        stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(data))
        environment, directory = dict(os.environ), Path.cwd()
        try:
            os.environ.update(self.environment)
            os.chdir(self.home)
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                code = main(arguments)
            return Done(arguments, code, _written(output), _written(errors))
        finally:
            sys.stdin = stdin
            os.chdir(directory)
            os.environ.clear()
            os.environ.update(environment)

    def _process(self, arguments: tuple[str, ...], data: bytes) -> Done:
        return subprocess.run(
            [*WINDLASS, *arguments],
            env=self.environment,
            input=data,
            capture_output=True,
            timeout=TIMEOUT,
            cwd=self.home,
        )

    def __call__(self, *arguments: str, data: bytes = b"") -> str:
        """Run a command, which must succeed, and return what it prints."""
        done = self.try_(*arguments, data=data)
        assert done.returncode == 0, (arguments, done.stderr.decode(), done.stdout.decode()[-500:])
        return done.stdout.decode()

    def refused(self, *arguments: str, data: bytes = b"", code: int = 1) -> str:
        """Run a command, which must fail with one line, and return that."""
        done = self.try_(*arguments, data=data)
        assert done.returncode == code, (arguments, done)
        error = done.stderr.decode()
        assert error.startswith("windlass: ") and error.count("\n") == 1, error
        return error


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _written(stream: io.TextIOWrapper) -> bytes:
    stream.seek(0)
    return bytes(stream.buffer.read())
