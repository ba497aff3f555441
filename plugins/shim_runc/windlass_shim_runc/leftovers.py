"""Ends what a dead shim has left: for the daemon that forked it, and as ``delete`` of the executable.

Knows a container by the files that a shim writes into its bundle
(docs/containerd 4.2), those of containerd's own runc shim included.
"""

# ruff: noqa: PTH108, PTH118, PTH208
from __future__ import annotations

import os
import select
import stat
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket

from windlass_linux import cgroups, mounting
from windlass_shim_runc import disk, messages, own
from windlass_shim_runc.commandline import environment
from windlass_shim_runc.kept import default_root, is_anothers, read, sweep
from windlass_shim_runc.spawn import kill_all, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT = 4.5
"""Seconds for all of it unless the caller says: containerd gives the executable 5 (its ``timeout.shim.cleanup``)."""

PATIENCE = 0.25
"""Share of the time for which a runtime may go on with what a dead shim has begun."""

MARGIN = 0.1
"""Share that is left for unmounting, and for the process's own start and end."""

DONE = b"done"
"""The answer when nothing is left."""

MAX_PROBLEM = 1000

KILLED = 137
CONNECT_TIMEOUT = 0.1


def clean(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Have the OCI runtime kill and forget a container, then unmount its rootfs; 0 also when there was none.

    The arguments, and the descriptor, are those of `windlass.contracts.shims.ForkedShim.cleanup`.
    """
    bundle, namespace, id, *rest = arguments
    problem = end(bundle, namespace, id, float(rest[0]) if rest else TIMEOUT)
    for fd in descriptors:
        answer(fd, problem.encode(errors="replace")[:MAX_PROBLEM] if problem else DONE)
    return 1 if problem else 0


def answer(pipe: int, text: bytes) -> None:
    """Answer the daemon, if it is still there: the next one asks again."""
    try:
        os.write(pipe, text)
    except BrokenPipeError:
        return


def end(bundle: str, namespace: str, id: str, seconds: float) -> str:
    """End a container and remove what is kept of it, in some seconds; return why not all is gone, "" when it is."""
    deadline = time.monotonic() + seconds * (1 - MARGIN)
    await_runtimes(bundle, seconds * PATIENCE)
    root, command = delete_command(bundle, namespace, id)
    problem, directory = "", f"{root}/{id}"
    if is_own(command[0]):
        problem = own.end(root, id, bundle)
    elif not is_anothers(directory, bundle):
        if (failure := attempt(command, bundle, deadline)) and (disk.exists(directory) or runs(bundle)):
            return failure
        problem = sweep(directory)
        groups = cgroups.groups_of(read(f"{bundle}/config.json"), id)
        cgroups.remove_within(groups, max(0.0, deadline - time.monotonic()) / 2)
    mounting.unmount_all(f"{bundle}/rootfs")
    return problem


def is_own(program: str) -> bool:
    """Return whether containers are made by our own runtime, which is no program then."""
    return program.rpartition("/")[2] == own.NAME


def runs(bundle: str) -> bool:
    """Return whether the process that the runtime said to be the container's still is there."""
    text = read(f"{bundle}/init.pid").strip()
    status = read(f"/proc/{int(text)}/status") if text.isdigit() else b""
    return bool(status) and b"\nState:\tZ" not in status


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
            # It may have ended, and its number be another process's by now.
            if is_runtime(pid, bundle):
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    kill_all(pid)
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
        if problem := end(bundle, namespace, id, TIMEOUT):
            sys.stderr.write(f"container {id} is not gone: {problem}\n")
        remove_socket(read(os.path.join(bundle, "address")).decode(errors="replace").strip())
    except OSError as error:
        sys.stderr.write(f"cannot remove all of container {id}: {error}\n")
    return messages.DeleteResponse(
        pid=int(text) if text.isdigit() else 0, exit_status=KILLED, exited_at=messages.timestamp(time.time_ns())
    ).encode()


def delete_command(bundle: str, namespace: str, id: str) -> tuple[str, list[str]]:
    """Return a runtime's root, and the command that ends a container as its shim had it made."""
    import json  # which the zygote need not have

    try:
        options = json.loads(read(os.path.join(bundle, "options.json")) or b"{}")
    except (ValueError, RecursionError):
        options = {}
    if not isinstance(options, dict):
        options = {}
    program = read(os.path.join(bundle, "runtime")).decode(errors="replace").strip() or "runc"
    root = f"{options.get('root') or default_root(bundle)}/{namespace}"
    command = [program, "--root", root]
    if options.get("systemd_cgroup"):
        command.append("--systemd-cgroup")
    return root, [*command, "delete", "--force", id]


def attempt(command: list[str], directory: str, deadline: float) -> str:
    """Run a command; return why it failed, "" when it did not."""
    try:
        status = execute(command, directory, deadline)
    except OSError as error:
        return f"cannot run {' '.join(command)}: {error.strerror}"
    return f"{' '.join(command)} ended with {status}" if status else ""


def execute(command: list[str], directory: str, deadline: float) -> int:
    """Run a command with its output thrown away and return its exit status, 1 when it was killed at ``deadline``."""
    pid = spawn(command, environment(), directory, {})
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            kill_all(pid)
            return 1
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def remove_socket(address: str) -> None:
    """Remove a shim's socket, unless another container of its pod has it alive; what is not a socket stays."""
    path = address.removeprefix("unix://")
    # Linux refuses connections to files and directories as it does to sockets without a listener.
    if not path.startswith("/") or not is_socket(path):
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


def is_socket(path: str) -> bool:
    """Return whether there is a socket at a path."""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
