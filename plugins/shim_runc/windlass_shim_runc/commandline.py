"""Any OCI runtime that is a program: its command line, its deadline, its error message (docs/containerd 4.8)."""

# ruff: noqa: PTH120, PTH123, PTH116
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os
import time

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_linux.cgroups import PATIENCE, PAUSE, groups_of, remove
from windlass_shim_runc import cgroups, disk, kept, oom
from windlass_shim_runc.checkpoint import Job
from windlass_shim_runc.oci import Runtime
from windlass_shim_runc.spawn import kill_all, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from windlass_shim_runc.loop import Flag
    from windlass_shim_runc.messages import AnyMessage, CheckpointTaskRequest, Options
    from windlass_shim_runc.shim import Shim

TIMEOUT = 45.0
"""Longest that any command may take; hooks run inside it."""

MAX_LOG = 64 << 10
LOG = "log.json"

INHERITED = ("PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")

ENVIRONMENT = {name: os.environ[name] for name in INHERITED if name in os.environ}
"""Read here, once for all shims that are forked: `os.environ` is made of more Python than it looks."""

GONE = (
    "process already finished",
    "no such process",
    "container not running",
    "does not exist",
    "sandbox is not running",
)
"""Words of runc, crun and, at the end, runsc for what has ended by itself."""

NO_GROUP = "lstat : no such file or directory"
"""Words of runc for `kill --all` of a container without a control group."""

NAME_TAKEN = "already exists"
"""Words of runc and crun for a name that they have given to a container before; then they have made nothing."""

REMEDIES = {
    NAME_TAKEN: "remove what an earlier run left with: {command} delete --force {id}",
    "container with given ID": "remove what an earlier run left with: {command} delete --force {id}",
    "executable file not found": "check the program's path and the image's PATH",
    "no such file or directory: unknown": "check that the rootfs holds what the spec names",
    "cgroups: cgroup mountpoint does not exist": "mount the cgroup file systems",
}


class CommandLine(Runtime):
    """The OCI runtime of one container, executed once for each command."""

    def __init__(self, shim: Shim, id: str, bundle: str, options: Options) -> None:
        self.program = options.binary_name or shim.program
        self.environment = environment(checked_criu(options.criu_path))
        self.root = f"{options.root or kept.default_root(bundle)}/{shim.namespace}"
        self.loop = shim.loop
        self.id = id
        self.by_systemd = options.systemd_cgroup
        self._reaper = shim.reaper
        self._bundle = bundle
        self._options = options
        self._argv = [self.program, "--root", self.root]
        if self.by_systemd:
            self._argv.append("--systemd-cgroup")

    @property
    def is_runc(self) -> bool:
        """Whether it is runc, which finds criu by PATH."""
        return False

    async def create(self, stdio: Mapping[int, int], console: str) -> int:
        """Execute ``create``."""
        flags = []
        if self._options.no_pivot_root:
            flags.append("--no-pivot")
        if self._options.no_new_keyring:
            flags.append("--no-new-keyring")
        return await self._make_init("create", flags, stdio, console)

    async def restore(self, stdio: Mapping[int, int], console: str, checkpoint: str) -> int:
        """Execute ``restore``."""
        job = Job(self, self.id, self._bundle, self._options)
        try:
            return await self._make_init("restore", job.restore_flags(checkpoint, bool(console)), stdio, console)
        except Error as error:
            raise job.explained_restore(error) from error
        finally:
            job.end_restore()

    async def _make_init(self, verb: str, flags: Sequence[str], stdio: Mapping[int, int], console: str) -> int:
        pid_file = f"{self._bundle}/init.pid"
        flags = ["--bundle", self._bundle, "--pid-file", pid_file, *flags, *console_flags(console)]
        await self.run(verb, self.id, *flags, stdio=stdio)
        return int(disk.read(pid_file))

    async def start(self, exited: Flag) -> None:
        """Execute ``start``."""
        await self.run("start", self.id)

    async def exec(self, exec_id: str, spec: bytes, stdio: Mapping[int, int], console: str) -> int:
        """Execute ``exec``."""
        name = f"exec-{exec_id}"
        spec_file, pid_file = f"{self._bundle}/{name}.json", exec_pid_file(self._bundle, exec_id)
        try:
            disk.write(spec_file, spec)
            flags = ["--process", spec_file, "--pid-file", pid_file, "--detach", *console_flags(console)]
            await self.run("exec", self.id, *flags, stdio=stdio, log=f"{name}.log")
            return int(disk.read(pid_file))
        finally:
            disk.remove(spec_file)
            disk.remove(f"{self._bundle}/{name}.log")

    async def kill(self, number: int, all: bool) -> None:
        """Execute ``kill``."""
        try:
            try:
                await self.run("kill", self.id, *(["--all"] if all else []), operands=[str(number)])
            except Error as error:
                if not all or NO_GROUP not in str(error):
                    raise
                # A rootless container has no control group; its processes end with the first of their PID namespace.
                await self.run("kill", self.id, operands=[str(number)])
        except Error as error:
            if any(words in str(error).lower() for words in GONE):
                raise NotFound(f"process of container {self.id} has finished already") from error
            raise

    async def pause(self) -> None:
        """Execute ``pause``."""
        await self.run("pause", self.id)

    async def resume(self) -> None:
        """Execute ``resume``."""
        await self.run("resume", self.id)

    async def update(self, resources: bytes) -> None:
        """Execute ``update`` with the resources as its standard input."""
        fd = os.memfd_create("resources")
        try:
            os.write(fd, resources)
            os.lseek(fd, 0, os.SEEK_SET)
            await self.run("update", self.id, "--resources", "-", stdio={0: fd})
        finally:
            os.close(fd)

    async def checkpoint(self, request: CheckpointTaskRequest) -> str:
        """Execute ``checkpoint``."""
        return await Job(self, self.id, self._bundle, self._options).dump(request)

    async def delete(self) -> None:
        """Execute ``delete``."""
        await self._delete()

    async def _delete(self, *flags: str) -> None:
        try:
            await self.run("delete", self.id, *flags)
        except Error as error:
            if "does not exist" not in str(error):
                raise

    async def abandon(self) -> None:
        """Execute ``delete --force``, then remove what the program does not know of: directory and control groups."""
        directory = f"{self.root}/{self.id}"
        # runc makes it, and refuses to make it again when it was killed before it renamed it.
        disk.remove(f"{self._bundle}/.init.pid")
        if kept.is_anothers(directory, self._bundle):
            return
        if disk.exists(directory):
            await self._delete("--force")
        groups = groups_of(disk.read(f"{self._bundle}/config.json"), self.id)
        deadline = time.monotonic() + PATIENCE
        # What was in them has lost its runtime, and ends.
        while remove(groups) and time.monotonic() < deadline:
            await self.loop.sleep(PAUSE)
        if problem := kept.sweep(directory):
            raise Error(problem)

    def forget(self) -> bool:
        """Leave it to the program."""
        return False

    def pids(self, init: int) -> list[int]:
        """Return the processes of init's control group."""
        return cgroups.pids(init)

    def metrics(self, init: int) -> AnyMessage:
        """Measure init's control group."""
        return cgroups.metrics(init)

    def watch_memory(self, init: int, on_oom: Callable[[], None]) -> oom.MemoryWatch | None:
        """Watch init's control group."""
        return oom.watch(self.loop, init, on_oom)

    async def run(
        self,
        verb: str,
        id: str,
        *flags: str,
        operands: Sequence[str] = (),
        stdio: Mapping[int, int] | None = None,
        log: str = LOG,
        timeout: float = TIMEOUT,
    ) -> None:
        """Run a command to its end; ``operands`` follow the container's ID."""
        log = f"{self._bundle}/{log}"
        offset = size(log)
        argv = [*self._argv, "--log", log, "--log-format", "json", verb, *flags, id, *operands]
        pid = self._spawn(argv, stdio or {})
        began = time.monotonic()
        try:
            status = await self._reaper.wait(pid, timeout)
        except TimeoutError as error:
            kill_all(pid)
            raise DeadlineExceeded(
                f"OCI runtime {verb} of {id} did not end in {time.monotonic() - began:.1f} s and was killed"
            ) from error
        if status:
            message = last_error(log, offset) or f"{self.program} exited with status {status}; see {log}"
            raise Error(f"OCI runtime {verb} failed: {message}{self._remedy(message, id)}")

    def _spawn(self, argv: list[str], stdio: Mapping[int, int]) -> int:
        # Wrappers read config.json where they are, as under containerd, whose shim works in the bundle.
        try:
            return spawn(argv, self.environment, self._bundle, stdio)
        except (FileNotFoundError, PermissionError) as error:
            # In Go's words and quotes, by which clients tell a program that is missing from other failures.
            why = (error.strerror or "").lower()
            if isinstance(error, FileNotFoundError) and "/" not in argv[0]:
                why = f"executable file not found in $PATH, which is {os.environ.get('PATH', os.defpath)}"
            raise FailedPrecondition(
                f'OCI runtime "{argv[0][:200]}": {why}; install it or correct the option BinaryName'
            ) from error

    def _remedy(self, message: str, id: str) -> str:
        for words, remedy in REMEDIES.items():
            if words in message:
                return "; " + remedy.format(command=" ".join(self._argv), id=id)
        return ""


def console_flags(console: str) -> list[str]:
    """Return the flags for a process with a terminal."""
    return ["--console-socket", console] if console else []


def exec_pid_file(bundle: str, exec_id: str) -> str:
    """Return where the pid of an exec is written; the file stays until the exec is deleted."""
    return f"{bundle}/exec-{exec_id}.pid"


def environment(criu: str = "") -> dict[str, str]:
    """Return what the OCI runtime needs of our environment; it finds ``criu`` by PATH alone since runc 1.1."""
    if not criu:
        return ENVIRONMENT
    return {**ENVIRONMENT, "PATH": f"{os.path.dirname(criu)}:{ENVIRONMENT.get('PATH', os.defpath)}"}


def checked_criu(path: str) -> str:
    """Return the option CriuPath; raises InvalidArgument when an OCI runtime would not find it."""
    if path and not (path.startswith("/") and path.endswith("/criu")):
        raise InvalidArgument(f"option CriuPath {path[:200]!r} must be an absolute path of a file called criu")
    return path


def size(path: str) -> int:
    """Return a file's size, 0 when there is none."""
    return os.stat(path).st_size if disk.exists(path) else 0


def last_error(path: str, offset: int) -> str:
    """Return the message of the last error in a runtime's JSON log from ``offset`` on, empty without one.

    The log is one JSON object after another, each in one line (runc) or in several (crun 1.28).
    """
    try:
        with open(path, "rb") as log:
            log.seek(max(offset, log.seek(0, os.SEEK_END) - MAX_LOG))
            text = log.read(MAX_LOG).decode(errors="replace")
    except OSError:
        return ""
    found = ""
    for entry in objects(text):
        message = entry.get("msg")
        if entry.get("level") == "error" and isinstance(message, str):
            found = message.strip()
    return found


def objects(text: str) -> Iterator[dict[str, object]]:
    """Yield the JSON objects in a text, whatever is between them."""
    import json  # which few shims ever need

    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
            yield found
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
