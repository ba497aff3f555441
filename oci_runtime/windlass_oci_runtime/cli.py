"""`windlass-oci`: the runtime with runc's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys

from windlass.errors import Error
from windlass_linux import sealing
from windlass_oci_runtime import ending, report, specification, state
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ENTERING = {"create", "run", "exec"}
"""Commands with which a copy of this process enters a container, which must find no program of the host's in it."""

STDIO = {0: 0, 1: 1, 2: 2}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None and not ENTERING.isdisjoint(sys.argv):
        sealing.execute(sys.executable, sys.orig_argv)
    parser = argparse.ArgumentParser(prog="windlass-oci", allow_abbrev=False)
    parser.add_argument("--root", default="/run/windlass-oci")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("create", "run"):
        create = commands.add_parser(name)
        create.add_argument("-b", "--bundle", default=".")
        create.add_argument("--console-socket", default="")
        create.add_argument("--pid-file")
        create.add_argument("id")
    for name in ("start", "state"):
        commands.add_parser(name).add_argument("id")
    execute = commands.add_parser("exec")
    execute.add_argument("-p", "--process")
    execute.add_argument("id")
    execute.add_argument("args", nargs=argparse.REMAINDER)
    kill = commands.add_parser("kill")
    kill.add_argument("id")
    kill.add_argument("signal", nargs="?", default="15", type=int)
    delete = commands.add_parser("delete")
    delete.add_argument("-f", "--force", action="store_true")
    delete.add_argument("id")
    options = parser.parse_args(argv)
    try:
        return int(globals()[f"_{options.command}"](options) or 0)
    except (Error, report.Failure, OSError) as error:
        sys.stderr.write(f"windlass-oci: {error}\n")
        return 1


def _make(options: argparse.Namespace) -> int:
    creation = Creation(options.root, options.id, os.path.abspath(options.bundle))
    try:
        creation.spawn(STDIO, options.console_socket)
        pid = creation.settle()
    except BaseException:
        creation.undo()
        raise
    if options.pid_file:
        with open(options.pid_file, "w", encoding="ascii") as file:
            file.write(str(pid))
    return pid


def _create(options: argparse.Namespace) -> None:
    _make(options)


def _run(options: argparse.Namespace) -> int:
    pid = _make(options)
    container = state.Container(options.root, options.id)
    ending.start(container)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ending.delete(container)
    return status if status >= 0 else 128 - status


def _start(options: argparse.Namespace) -> None:
    ending.start(state.Container(options.root, options.id))


def _state(options: argparse.Namespace) -> None:
    container = state.Container(options.root, options.id)
    found = container.read()
    json.dump({**found, "status": container.status(found)}, sys.stdout, indent=2)


def _exec(options: argparse.Namespace) -> int:
    container = state.Container(options.root, options.id)
    if options.process:
        with open(options.process, "rb") as file:
            process = json.load(file)
    else:
        process = specification.load(container.read()["bundle"])["process"]
        process["args"] = [each for each in options.args if each != "--"]
    entry = Entry(container, process)
    entry.spawn(STDIO)
    pid = entry.settle()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


def _kill(options: argparse.Namespace) -> None:
    ending.kill(state.Container(options.root, options.id), options.signal)


def _delete(options: argparse.Namespace) -> None:
    ending.delete(state.Container(options.root, options.id), options.force)


if __name__ == "__main__":
    sys.exit(main())
