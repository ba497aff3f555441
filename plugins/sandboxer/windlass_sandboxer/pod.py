"""One pod on the disk: its directory, its namespaces by name, and its init process if it has one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path

from windlass.contracts.zygote import Zygote
from windlass.errors import Internal
from windlass.records import dataclass
from windlass_linux import namespaces
from windlass_sandboxer import owned
from windlass_sandboxer.reaper import ENTRY
from windlass_sandboxer.settings import Settings, path_of

RECORD = "sandbox.json"
NAMES = ("user", "ipc", "uts")
"""Of namespaces, in a pod's directory."""
KILL_TIMEOUT = 10.0


@dataclass
class Pod:
    """What is known of a pod; kept in its directory."""

    directory: Path
    settings: Settings
    netns: str
    """Path of the network namespace that it joins; empty for the host's."""
    created_at: int = 0
    """Nanoseconds since the epoch when it was started, 0 before."""
    exited_at: int = 0
    pid: int = 0
    """Of the init of its PID namespace, 0 without one."""
    pid_started: int = 0
    """When that process was started, so that another one with its number is not taken for it."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The sandbox's ID."""
        return self.directory.name

    def namespaces(self) -> dict[str, str]:
        """Return the paths of what it has of its own, by kind; ``pid`` while its init lives."""
        found = {kind: str(path) for kind, path in self._names().items() if self.created_at}
        if self.settings.net and self.netns:
            found["net"] = self.netns
        if self.alive():
            found["pid"] = f"/proc/{self.pid}/ns/pid"
        return found

    def _names(self) -> dict[str, Path]:
        return {kind: self.directory / kind for kind in NAMES if getattr(self.settings, kind)}

    @property
    def ready(self) -> bool:
        """Whether containers can run in it: it was started, not stopped, and all it is made of is there."""
        if not self.created_at or self.exited_at:
            return False
        names = [*self._names().values(), *([Path(self.netns)] if self.settings.net and self.netns else [])]
        return all(namespaces.is_there(path) for path in names) and (not self.settings.pid or self.alive())

    def save(self) -> None:
        """Write the record. Raises OSError, and leaves the earlier one then."""
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        document = {**asdict(self), "directory": "", "settings": asdict(self.settings)}
        temporary = self.directory / f".{RECORD}"
        try:
            temporary.write_text(json.dumps(document))
            temporary.rename(self.directory / RECORD)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(temporary)) from None  # a full disk does not say where

    def start(self, zygote: Zygote) -> None:
        """Make the namespaces, set what is set in them, and start the init if there is one. Blocks; all or nothing."""
        join = {"net": Path(self.netns)} if self.settings.net and self.netns else {}
        names = self._names()
        try:
            if self.settings.user:
                owned.create(zygote, names, self.settings, self.netns if join else "")
            else:
                namespaces.create(names, self._prepare, join)
            if self.settings.pid:
                self._start_init(zygote, [*names.values(), *join.values()])
        except BaseException:
            self.stop()
            raise

    def _prepare(self) -> None:
        """Set hostname and sysctls, in a thread that is in the namespaces."""
        if self.settings.uts and self.settings.hostname:
            socket.sethostname(self.settings.hostname)
        for name, value in self.settings.sysctls.items():
            if name.startswith("net") and not self.netns:
                continue
            try:
                Path(path_of(name)).write_text(value)
            except OSError as error:
                raise OSError(error.errno, f"sysctl {name} cannot be set to {value!r}: {error.strerror}") from None

    def _start_init(self, zygote: Zygote, joined: list[Path]) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        descriptors = [write]
        try:
            descriptors += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in joined]
            arguments = ["user"] if self.settings.user else []
            os.close(zygote.spawn(ENTRY, arguments, descriptors).pidfd)
            while descriptors:
                os.close(descriptors.pop())
            pid = int(os.read(read, 32) or b"0")  # ends with the child, which alone can write
        finally:
            for descriptor in (read, *descriptors):
                os.close(descriptor)
        if not pid:
            raise Internal(f"the init process of sandbox {self.id} did not start; the daemon's log says why")
        self.pid, self.pid_started = pid, started(pid)

    def alive(self) -> bool:
        """Return whether the init is there."""
        return self.pid != 0 and started(self.pid) == self.pid_started

    def stop(self) -> None:
        """Kill the init, and all processes of its namespace with it; remove the names of the namespaces."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self.pid)
                try:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    waiting = select.poll()  # select() has no descriptors above 1023
                    waiting.register(pidfd, select.POLLIN)
                    waiting.poll(KILL_TIMEOUT * 1000)
                finally:
                    os.close(pidfd)
        for path in self._names().values():
            namespaces.remove(path)

    def remove(self) -> None:
        """Remove the directory, after `stop`."""
        shutil.rmtree(self.directory)


def load(directory: Path) -> Pod | None:
    """Return the pod of a directory; None for one whose record was never written, or is damaged."""
    try:
        document = json.loads((directory / RECORD).read_text())
        settings = Settings(**document.pop("settings"))
        return Pod(**{**document, "directory": directory, "settings": settings})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def started(pid: int) -> int:
    """Return when a process was started, in ticks since boot (proc(5), stat, field 22); 0 without one, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
