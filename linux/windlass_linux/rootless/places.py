"""Where a plain user's daemon has its files, and which of root's paths they are inside its mount namespace."""

from __future__ import annotations

import os
from pathlib import Path

from windlass.errors import StartError
from windlass.records import dataclass

Own = dict[str, Path | None]
"""By the name of an entry, the directory that is shown there; None hides what the host has."""


@dataclass(frozen=True)
class Places:
    """A user's directories, as the XDG base directory specification has them."""

    runtime: Path
    data: Path
    config: Path

    @classmethod
    def of_environment(cls) -> Places:
        """Return those that the environment names. Raises StartError without XDG_RUNTIME_DIR, which has no default."""
        home = Path.home()
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if not runtime or not os.access(runtime, os.W_OK | os.X_OK):
            state = f"{runtime} is not a directory to write in" if runtime else "is not set"
            raise StartError(
                f"XDG_RUNTIME_DIR {state}; log in by ssh or on the console rather than by su, "
                f"or as root: loginctl enable-linger {os.getuid()}"
            )
        return cls(
            Path(runtime),
            Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share"),
            Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config"),
        )

    @property
    def state(self) -> Path:
        """What /run/windlass is inside; the daemon's socket is in it."""
        return self.runtime / "windlass"

    @property
    def pid_file(self) -> Path:
        """Holds the PID of the first process inside, and is locked as long as there is one."""
        return self.state / "rootless.pid"

    @property
    def api(self) -> Path:
        """The socket by which slirp4netns publishes ports."""
        return self.state / "slirp4netns.sock"

    def shadows(self) -> dict[str, Own]:
        """Return, by directory of root's, which entries are the user's own: inside, every path is as for root."""
        return {
            "/etc": {"windlass": self.config / "windlass", "cni": self.config / "cni"},
            "/run": {"windlass": self.state, "windlass-client": None, "containerd": None, "netns": None},
            "/var/lib": {
                "windlass": self.data / "windlass",
                "windlass-client": self.data / "windlass-client",
                "cni": None,
            },
        }

    def make(self) -> None:
        """Make the directories that are missing, closed to other users. Raises StartError."""
        wanted = [path for own in self.shadows().values() for path in own.values() if path]
        for path in wanted:
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StartError(f"directory {path} cannot be made: {error.strerror}") from None
