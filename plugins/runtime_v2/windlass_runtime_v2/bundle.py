"""One bundle: the directory of a task, with its spec, its rootfs and how to reach its shim (docs/containerd 4.2).

Everything is synchronous file work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from windlass.errors import FailedPrecondition
from windlass.records import dataclass

BOOTSTRAP_FILE = "bootstrap.json"
ADDRESS_FILE = "address"
SHIM_BINARY_FILE = "shim-binary-path"
CHECKPOINT = "checkpoint"
MAX_STATE_FILE = 64 << 10


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to reach a shim; ``runtime`` is set for a forked one and names what it serves.

    ``sandbox`` is the sandbox that the shim was started for, "" in a bundle whose own it is.
    """

    address: str
    version: int = 3
    protocol: str = "ttrpc"
    runtime: str = ""
    sandbox: str = ""

    @property
    def forked(self) -> bool:
        """Whether the shim was forked for this bundle alone."""
        return bool(self.runtime) and not self.sandbox


@dataclass(frozen=True, slots=True)
class Bundle:
    """One task's directories: ``path`` below the state directory, ``work`` below the root."""

    namespace: str
    id: str
    path: Path
    work: Path

    @property
    def rootfs(self) -> Path:
        """Where the shim mounts the container's root filesystem."""
        return self.path / "rootfs"

    def read_bootstrap(self) -> Bootstrap:
        """Return how to reach the shim; raises FailedPrecondition when the bundle does not say."""
        try:
            return parse_bootstrap(_read_bounded(self.path / BOOTSTRAP_FILE))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"bundle {self.path}: {BOOTSTRAP_FILE} cannot be used: {error}") from error
        return self._migrate_address()

    def write_bootstrap(self, bootstrap: Bootstrap) -> None:
        """Say how to reach the shim, all or nothing."""
        _write_whole(self.path / BOOTSTRAP_FILE, json.dumps(asdict(bootstrap)).encode(), 0o644)

    def read_shim_binary(self) -> str:
        """Return the path of the shim's executable, "" when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return _read_bounded(self.path / SHIM_BINARY_FILE).decode().strip()
        return ""

    def write_shim_binary(self, path: str) -> None:
        """Remember the shim's executable, which a later daemon, ours or another, calls to clean up."""
        _write_whole(self.path / SHIM_BINARY_FILE, path.encode(), 0o600)

    def init_pid(self) -> int:
        """Return the pid that the shim had written into the bundle, 0 when there is none."""
        with contextlib.suppress(OSError, ValueError), (self.path / "init.pid").open("rb") as file:
            return int(file.read(20))
        return 0

    def adopt_checkpoint(self, directory: str) -> str:
        """Move an unpacked checkpoint into the work directory, with which it goes; return where it is.

        Raises FailedPrecondition when it cannot be moved.
        """
        target = self.work / CHECKPOINT
        try:
            shutil.move(directory, target)
        except (OSError, shutil.Error) as error:
            raise FailedPrecondition(f"checkpoint for task {self.id} cannot be moved to its bundle: {error}") from error
        return str(target)

    def _migrate_address(self) -> Bootstrap:
        """Take the address from where shims of containerd 1.x left it (docs/containerd 4.11)."""
        try:
            address = _read_bounded(self.path / ADDRESS_FILE).decode().strip()
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"bundle {self.path} names no shim: {error}") from error
        bootstrap = Bootstrap(address, version=2)
        self.write_bootstrap(bootstrap)
        return bootstrap


def parse_bootstrap(data: bytes) -> Bootstrap:
    """Read bootstrap.json as we and containerd write it; raises ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    found = {str(key).lower(): item for key, item in value.items()}
    address, version = found.get("address"), found.get("version")
    protocol, runtime = found.get("protocol") or "ttrpc", found.get("runtime") or ""
    sandbox = found.get("sandbox") or ""
    if not isinstance(address, str) or not address or not isinstance(version, int):
        raise ValueError("address and version are needed")
    if not isinstance(protocol, str) or not isinstance(runtime, str) or not isinstance(sandbox, str):
        raise ValueError("protocol, runtime and sandbox must be strings")
    return Bootstrap(address, version, protocol, runtime, sandbox)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_STATE_FILE + 1)
    if len(data) > MAX_STATE_FILE:
        raise ValueError(f"{path.name} is longer than {MAX_STATE_FILE} bytes")
    return data


def _write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that a reader sees all of it or none; the state directory needs no fsync."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.rename(path)
