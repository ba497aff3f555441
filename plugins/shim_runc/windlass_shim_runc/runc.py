"""Runs the OCI runtime: its command line, its deadline, its error message."""

# ruff: noqa: PTH108, PTH120, PTH123, PTH116
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os
import time

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_shim_runc import disk, forgetting
from windlass_shim_runc.loop import Flag, Loop
from windlass_shim_runc.messages import Options
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.spawn import kill_all, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TIMEOUT = 45.0
"""Longest that any command may take; hooks run inside it."""

START_TIMEOUT = 10.0
MAX_LOG = 64 << 10

TASK_DIRECTORY = "io.containerd.runtime.v2.task"
CONTAINERD_ROOT = "/run/containerd/runc"

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

NAME_TAKEN = "already exists"
"""Words of runc and crun for a name that they have given to a container before; then they have made nothing."""

REMEDIES = {
    NAME_TAKEN: "remove what an earlier run left with: {command} delete --force {id}",
    "container with given ID": "remove what an earlier run left with: {command} delete --force {id}",
    "executable file not found": "check the program's path and the image's PATH",
    "no such file or directory: unknown": "check that the rootfs holds what the spec names",
    "cgroups: cgroup mountpoint does not exist": "mount the cgroup file systems",
}


def default_root(bundle: str) -> str:
    """Return where runc keeps its state when no option says so: beside the bundles of the daemon that made this one.

    A bundle is STATE/io.containerd.runtime.v2.task/NAMESPACE/ID, so that two
    daemons with states of their own never share a root; for containerd's state
    directory it is containerd's own root.
    """
    state, slash, tasks = bundle.rpartition(f"/{TASK_DIRECTORY}/")
    return f"{state}/runc" if slash and tasks.count("/") == 1 else CONTAINERD_ROOT


def environment(criu: str = "") -> dict[str, str]:
    """Return what the OCI runtime needs of our environment; it finds ``criu`` by PATH alone since runc 1.1."""
    if not criu:
        return ENVIRONMENT
    return {**ENVIRONMENT, "PATH": f"{os.path.dirname(criu)}:{ENVIRONMENT.get('PATH', os.defpath)}"}


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


def checked_criu(path: str) -> str:
    """Return the option CriuPath; raises InvalidArgument when an OCI runtime would not find it."""
    if path and not (path.startswith("/") and path.endswith("/criu")):
        raise InvalidArgument(f"option CriuPath {path[:200]!r} must be an absolute path of a file called criu")
    return path


def size(path: str) -> int:
    """Return a file's size, 0 when there is none."""
    return os.stat(path).st_size if disk.exists(path) else 0


class Runtime:
    """One container's OCI runtime."""

    __slots__ = (
        "_argv",
        "_bundle",
        "_by_systemd",
        "_loop",
        "_program",
        "_reaper",
        "create_flags",
        "environment",
        "is_runc",
        "root",
    )

    def __init__(self, loop: Loop, reaper: Reaper, bundle: str, namespace: str, options: Options) -> None:
        self._loop = loop
        self._reaper = reaper
        self._bundle = bundle
        self._program = options.binary_name or "runc"
        self.environment = environment(checked_criu(options.criu_path))
        self.root = f"{options.root or default_root(bundle)}/{namespace}"
        self._argv = [self._program, "--root", self.root]
        self._by_systemd = options.systemd_cgroup
        if self._by_systemd:
            self._argv.append("--systemd-cgroup")
        self.create_flags: list[str] = []
        if options.no_pivot_root:
            self.create_flags.append("--no-pivot")
        if options.no_new_keyring:
            self.create_flags.append("--no-new-keyring")
        # crun's exec.fifo works the other way round, so only runc's own is used.
        self.is_runc = self._program.rpartition("/")[2] == "runc"

    async def run(
        self,
        verb: str,
        id: str,
        *flags: str,
        operands: Sequence[str] = (),
        stdio: Mapping[int, int] | None = None,
        log: str = "log.json",
        timeout: float = TIMEOUT,
    ) -> None:
        """Run a command to its end; ``operands`` follow the container's ID.

        ``stdio`` maps its descriptors 0 to 2 to ours; the others are /dev/null.
        Raises Error with the runtime's own last message, DeadlineExceeded.
        """
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
            message = last_error(log, offset) or f"{self._program} exited with status {status}; see {log}"
            raise Error(f"OCI runtime {verb} failed: {message}{self._remedy(message, id)}")

    async def start(self, id: str, exited: Flag) -> None:
        """Let a created container run its program."""
        fifo = f"{self.root}/{id}/exec.fifo"
        fd = self._open_fifo(fifo)
        if fd is None:
            await self.run("start", id)
            return
        # What `runc start` does, without a new process: its init waits in open(2) for a reader of the
        # FIFO, writes one byte and executes the program; no FIFO left tells runc that it is running.
        try:
            await self._loop.readable(fd, START_TIMEOUT, exited)
            if not os.read(fd, 1):
                raise Error(f"OCI runtime start failed: init of {id} ended before it was started")
        except BlockingIOError as error:
            raise Error(f"OCI runtime start failed: init of {id} ended before it was started") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"init of {id} did not answer the start in {START_TIMEOUT:.0f} s") from error
        finally:
            os.close(fd)
        os.unlink(fifo)

    async def delete(self, id: str, *flags: str) -> None:
        """Remove what is kept of a container; one that is unknown is none."""
        try:
            await self.run("delete", id, *flags)
        except Error as error:
            if "does not exist" not in str(error):
                raise

    async def kill(self, id: str, number: int, all: bool) -> None:
        """Send a signal to init, or to all processes; raises NotFound when they have ended."""
        try:
            await self.run("kill", id, *(["--all"] if all else []), operands=[str(number)])
        except Error as error:
            if any(words in str(error).lower() for words in GONE):
                raise NotFound(f"process of container {id} has finished already") from error
            raise

    def forget(self, id: str) -> bool:
        """Remove what the runtime keeps of a stopped container, if that can be done without it."""
        # A program that only calls itself runc may have more to do at the end.
        return self._program == "runc" and not self._by_systemd and forgetting.forget(self.root, id)

    def _open_fifo(self, path: str) -> int | None:
        if not self.is_runc:
            return None
        try:
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return None

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
