"""Commands that make processes: create, run, exec."""

from __future__ import annotations

import contextlib
import json
import os
import socket

from windlass.errors import FailedPrecondition, NotFound
from windlass_oci_runtime import ending, specification
from windlass_oci_runtime.cli import foreground
from windlass_oci_runtime.cli.options import Options, Usage
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry
from windlass_oci_runtime.state import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from windlass_oci_runtime.json_types import Document

STDIO = {0: 0, 1: 1, 2: 2}


def create_command(root: str, options: Options) -> None:
    """Make a container that waits for its start."""
    creation = _creation(root, options, detached=True)
    _spawn(creation, options, options.text("console-socket"))


def run_command(root: str, options: Options) -> int:
    """Make a container and start it; without --detach stay until it has ended, and remove it."""
    detached = options.has("detach")
    creation = _creation(root, options, detached)
    terminal = bool(creation.process.spec.get("terminal"))
    container = creation.container
    if not detached:
        foreground.hold_signals()
    with _console(terminal and not detached) as (ours, theirs):
        pid = _spawn(creation, options, theirs or options.text("console-socket"))
        try:
            ending.start(container)
        except BaseException:
            ending.delete(container, force=True)
            raise
        if detached:
            return 0
        code = foreground.stay(pid, ours)
    if not options.has("keep"):
        with contextlib.suppress(NotFound):  # somebody else may have removed it
            ending.delete(container, force=True)
    return code


def exec_command(root: str, options: Options) -> int:
    """Run a further process; without --detach stay until it has ended."""
    container, detached = Container(root, options.operands[0]), options.has("detach")
    process = _process(container, options)
    terminal = _check_terminal(process, options, detached)
    entry = Entry(container, process, options.has("ignore-paused"), options.text("cgroup").strip("/"))
    if not detached:
        foreground.hold_signals()
    with _console(terminal and not detached) as (ours, theirs):
        pid = _spawn(entry, options, theirs or options.text("console-socket"))
        if detached:
            return 0
        return foreground.stay(pid, ours)


def _creation(root: str, options: Options, detached: bool) -> Creation:
    if options.has("no-pivot"):
        raise Usage("--no-pivot is not supported: without pivot_root(2) a container could leave its root")
    bundle = os.path.abspath(options.text("bundle", "."))
    by_systemd = options.has("systemd-cgroup")
    creation = Creation(root, options.operands[0], bundle, not options.has("no-new-keyring"), by_systemd)
    try:
        _check_terminal(creation.process.spec, options, detached)
    except Usage:
        creation.undo()
        raise
    return creation


def _check_terminal(process: Mapping[str, Any], options: Options, detached: bool) -> bool:
    terminal, path = bool(process.get("terminal")), options.text("console-socket")
    if terminal and detached and not path:
        raise Usage("cannot allocate tty if the runtime will detach without setting console socket")
    if path and not (terminal and detached):
        raise Usage("cannot use console socket if the runtime will not detach or allocate tty")
    return terminal


@contextlib.contextmanager
def _console(wanted: bool) -> Iterator[tuple[socket.socket | None, socket.socket | None]]:
    """Give both ends of the socket that the terminal of a process in the foreground comes by."""
    if not wanted:
        yield None, None
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _spawn(making: Creation | Entry, options: Options, console: str | socket.socket) -> int:
    preserved = options.number("preserve-fds") + int(os.environ.get("LISTEN_FDS") or 0)
    for number in range(3, 3 + preserved):
        try:
            os.fstat(number)
        except OSError:
            making.undo()
            raise FailedPrecondition(f"descriptor {number} is to be preserved and is not open") from None
    try:
        making.preserve(preserved)
        if isinstance(making, Creation) and making.in_scope:
            making.hold()
            making.enroll()
        making.spawn(STDIO, console)
        pid = making.settle()
        if path := options.text("pid-file"):
            _write(path, str(pid))
    except BaseException:
        making.undo()
        raise
    return pid


def _write(path: str, text: str) -> None:
    """Write a file whole: who waits for it reads all of it."""
    beside = f"{path}.{os.getpid()}"
    with open(beside, "w", encoding="ascii") as file:
        file.write(text)
    os.rename(beside, path)


def _process(container: Container, options: Options) -> Document:
    """Return what is to run: a document's process, or the container's own with another command."""
    if path := options.text("process"):
        try:
            with open(path, "rb") as file:
                found: Document = json.load(file)
        except ValueError as error:
            raise Usage(f"--process {path} is not JSON: {error}") from None
        return found
    if not options.operands[1:]:
        raise Usage("exec requires a command")
    process: Document = specification.load(container.read()["bundle"])["process"]
    process["args"] = [each for number, each in enumerate(options.operands[1:]) if number or each != "--"]
    process["terminal"] = options.has("tty")
    process.pop("consoleSize", None)
    process["env"] = [*(process.get("env") or []), *options.all("env")]
    for flag, name in (("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if text := options.text(flag):
            process[name] = text
    if options.has("no-new-privs"):
        process["noNewPrivileges"] = True
    _set_user(process, options)
    _add_capabilities(process, options.all("cap"))
    return process


def _add_capabilities(process: Document, names: list[str]) -> None:
    sets = process["capabilities"] = process.get("capabilities") or {}
    # Only what is inheritable can be ambient, and this adds nothing to what is.
    ambient = ["ambient"] if sets.get("inheritable") else []
    for which in ("bounding", "effective", "permitted", *ambient):
        sets[which] = [*(sets.get(which) or []), *names]


def _set_user(process: Document, options: Options) -> None:
    user = process.setdefault("user", {})
    if text := options.text("user"):
        uid, colon, gid = text.partition(":")
        if not uid.isdecimal() or (colon and not gid.isdecimal()):
            raise Usage(f"--user {text!r} is not UID[:GID]")
        user["uid"] = int(uid)
        if colon:
            user["gid"] = int(gid)
    groups = [int(each) for each in options.all("additional-gids") if each.isdecimal()]
    if len(groups) != len(options.all("additional-gids")):
        raise Usage("--additional-gids takes numbers")
    if groups:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *groups]
