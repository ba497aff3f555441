"""``start``: makes a shim's socket, leaves a process serving it, and tells the daemon its address.

Source: docs/containerd 4.4.
"""

# ruff: noqa: PTH103, PTH105, PTH108, PTH211
# pathlib costs a start as much as all of this.
from __future__ import annotations

import os
import sys
from _sha256 import sha256  # type: ignore[import-not-found] # typeshed leaves it out; hashlib loads OpenSSL
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

from windlass_api.ttrpc.framing import number, string
from windlass_shim_runc.flags import Refused
from windlass_shim_runc.log import use_fifo
from windlass_shim_runc.params import Start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from windlass_shim_runc.flags import Flags

DEFAULT_SOCKETS = "/run/containerd/s"
MAX_SOCKET_DIRECTORY = 42
CONNECT_TIMEOUT = 0.1
BACKLOG = 128
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Annotations whose containers share a shim."""

MAX_SPEC = 16 << 20
PR_SCHED_CORE, PR_SCHED_CORE_CREATE, PR_SCHED_CORE_SCOPE_THREAD_GROUP = 62, 1, 1


def start(flags: Flags, data: bytes) -> int:
    """Start a child that serves, or use the shim that serves the pod already, and print its address."""
    wanted = Start(flags, data)
    directory = socket_directory(wanted)
    key = "/".join((wanted.grpc_address.rstrip("/"), wanted.namespace, group() or wanted.id))
    path = f"{directory}/{sha256(key.encode()).hexdigest()}"
    listener = None if is_served(path) else listen(path)
    write_address(f"unix://{path}")
    if listener is not None:
        core_schedule()
        if os.fork() == 0:
            serve(listener, path, wanted)
    answer(f"unix://{path}", wanted.is_current)
    return 0


def answer(address: str, is_current: bool) -> None:
    """Print a BootstrapResult, or the bare address that every older daemon understands."""
    # Version 3 is in the message only: an address alone means 2, and that is served too.
    data = number(1, 3) + string(2, address) + string(3, "ttrpc") if is_current else address.encode()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def socket_directory(wanted: Start) -> str:
    """Return where sockets are, made if need be; one that is not the usual is remembered in the bundle."""
    directory = wanted.socket_directory or DEFAULT_SOCKETS
    if not directory.startswith("/") or len(os.fsencode(directory)) > MAX_SOCKET_DIRECTORY:
        raise Refused(f"socket directory {directory[:200]!r} must be absolute and at most {MAX_SOCKET_DIRECTORY} bytes")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if directory != DEFAULT_SOCKETS:
        try:
            os.symlink(directory, "s")
        except FileExistsError:
            pass
    return directory


def group() -> str:
    """Return the name of the pod that the spec in the current directory belongs to, empty for none."""
    try:
        with open("config.json", "rb") as file:  # noqa: PTH123
            spec = file.read(MAX_SPEC)
    except OSError:
        return ""
    if not any(name.encode() in spec for name in GROUPS):
        return ""
    import json

    try:
        annotations = json.loads(spec).get("annotations") or {}
        found = (annotations.get(name) for name in GROUPS)
    except (ValueError, AttributeError, RecursionError):
        # The daemon wrote something that the OCI runtime will refuse in its own words.
        return ""
    return next((value for value in found if isinstance(value, str) and value), "")


def is_served(path: str) -> bool:
    """Whether a shim answers on a socket; the file of one where none does is removed."""
    with socket_at() as sock:
        sock.settimeout(CONNECT_TIMEOUT)
        try:
            sock.connect(path)
        except FileNotFoundError:
            return False
        except OSError:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            return False
    return True


def socket_at() -> Closing:
    """Return a new unix socket."""
    return Closing(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)


class Closing(socket):
    """The C socket, as a context that closes it; `socket.socket` takes 2 ms to import."""

    def __enter__(self) -> Closing:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def listen(path: str) -> Closing:
    """Listen on a socket that only root may use."""
    sock = socket_at()
    mask = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    finally:
        os.umask(mask)
    return sock


def write_address(address: str) -> None:
    """Write the file by which containerd before 2.0 finds a shim again."""
    with open(".address", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(address)
    os.replace(".address", "address")


def core_schedule() -> None:
    """Give the shim a core-scheduling group of its own when the daemon's setting asks for it."""
    if os.environ.get("SCHED_CORE"):
        from windlass_linux import calls as linux

        linux.prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PR_SCHED_CORE_SCOPE_THREAD_GROUP, 0)


def serve(listener: socket, path: str, wanted: Start) -> None:
    """Run the shim, in the child; never returns."""
    status = 1
    try:
        detach()
        from windlass_shim_runc import executed

        status = executed.serve(listener, wanted)
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        try:
            os.unlink(path)
        except OSError:
            pass
        os._exit(status)


def detach() -> None:
    """Leave the daemon's process group, terminal, directory and pipes; lines go to the FIFO that it reads."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    use_fifo(".")
    os.chdir("/")
