"""`windlass` against a machine's daemon, as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from compat.machines import Machine

WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
TIMEOUT = 60

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
