"""Ends what a dead shim has left: for the daemon that forked it, and as ``delete`` of the executable.

Knows a container by the files that a shim writes into its bundle (reference
4.2), those of containerd's own runc shim included.
"""

# ruff: noqa: PTH108, PTH118, PTH208
from __future__ import annotations

import os
import select
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from windlass import mounting
from windlass_shim_runc import disk, messages
from windlass_shim_runc.runc import default_root, environment
from windlass_shim_runc.signals import SIGKILL
from windlass_shim_runc.spawn import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 4.5
"""Seconds for all of it when nobody says: containerd gives the executable 5 (its ``timeout.shim.cleanup``)."""

PATIENCE = 0.25
"""Share of the time for which a runtime may go on with what a dead shim has begun."""

MARGIN = 0.1
"""Share that is left for unmounting, and for the process's own start and end."""

KILLED = 137
CONNECT_TIMEOUT = 0.1


def clean(arguments: Sequence[str], _descriptors: Sequence[int]) -> int:
    """Have the OCI runtime kill and forget a container, then unmount its rootfs; 0 also when there was none.

    The arguments are those of `windlass.shims.ForkedShim.cleanup`.
    """
    bundle, namespace, id, *rest = arguments
    seconds = float(rest[0]) if rest else TIMEOUT
    deadline = time.monotonic() + seconds * (1 - MARGIN)
    await_runtimes(bundle, seconds * PATIENCE)
    command = delete_command(bundle, namespace, id)
    try:
        status = execute(command, bundle, deadline)
    except OSError as error:
        sys.stderr.write(f"cannot run {' '.join(command)}: {error}\n")
        status = 1
    mounting.unmount_all(os.path.join(bundle, "rootfs"))
    return status


def await_runtimes(bundle: str, patience: float) -> None:
    """Return when the runtime does nothing any more that the shim began; what takes ``patience`` seconds is killed.

    It outlives a shim that is killed, and would go on making what is being deleted.
    """
    deadline = time.monotonic() + patience
    for pid in runtimes(bundle):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # It may have ended, and its number be another's by now.
            if is_runtime(pid, bundle):
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    os.killpg(pid, SIGKILL)
                    poll.poll(patience * 1000)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def runtimes(bundle: str) -> list[int]:
    """Return the processes of the runtime that work on a bundle."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_runtime(int(name), bundle)]


def is_runtime(pid: int, bundle: str) -> bool:
    """Tell a process of the runtime by where it is to write its log (`windlass_shim_runc.runc`)."""
    return f"\0--log\0{bundle}/".encode() in read(f"/proc/{pid}/cmdline")


def delete(bundle: str, namespace: str, id: str) -> bytes:
    """Do the same for a daemon that executed us, and return an encoded DeleteResponse; a half-made bundle is fine."""
    text = read(os.path.join(bundle, "init.pid")).strip()
    try:
        clean((bundle, namespace, id), ())
        remove_socket(read(os.path.join(bundle, "address")).decode(errors="replace").strip())
    except OSError as error:
        sys.stderr.write(f"cannot remove all of container {id}: {error}\n")
    return messages.DeleteResponse(
        pid=int(text) if text.isdigit() else 0, exit_status=KILLED, exited_at=messages.timestamp(time.time_ns())
    ).encode()


def delete_command(bundle: str, namespace: str, id: str) -> list[str]:
    """Return the command that ends a container as its shim had it made."""
    import json  # which the zygote need not have

    try:
        options = json.loads(read(os.path.join(bundle, "options.json")) or b"{}")
    except (ValueError, RecursionError):
        options = {}
    if not isinstance(options, dict):
        options = {}
    program = read(os.path.join(bundle, "runtime")).decode(errors="replace").strip() or "runc"
    root = options.get("root") or default_root(bundle)
    command = [program, "--root", f"{root}/{namespace}"]
    if options.get("systemd_cgroup"):
        command.append("--systemd-cgroup")
    return [*command, "delete", "--force", id]


def execute(command: list[str], directory: str, deadline: float) -> int:
    """Run a command with its output thrown away and return its exit status, 1 when it was killed at ``deadline``."""
    pid = spawn(command, environment(), directory, {})
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            os.killpg(pid, SIGKILL)
            return 1
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def remove_socket(address: str) -> None:
    """Remove a shim's socket, unless another container of its pod has it alive."""
    path = address.removeprefix("unix://")
    if not path.startswith("/"):
        return
    sock = socket(AF_UNIX, SOCK_STREAM)
    sock.settimeout(CONNECT_TIMEOUT)
    try:
        sock.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        return
    finally:
        sock.close()


def read(path: str) -> bytes:
    """Return a file's content, nothing when it cannot be read."""
    try:
        return disk.read(path)
    except OSError:
        return b""
