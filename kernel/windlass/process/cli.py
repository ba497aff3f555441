"""The command line of `windlassd`: containerd's flags and commands, and a few of our own (docs/containerd 1.4)."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windlass import __version__
from windlass.errors import StartError

if TYPE_CHECKING:
    from windlass.config.loading import Flags, Paths

COMMANDS = "windlass.commands"
"""Group of entry points of commands that other distributions bring."""

LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


def parser() -> argparse.ArgumentParser:
    """Return the parser; nothing that costs is imported for it, so that --help is quick."""
    top = argparse.ArgumentParser("windlassd", description="The Windlass container daemon.", allow_abbrev=False)
    add = top.add_argument
    add("-v", "--version", action="version", version=f"windlassd {__version__}")
    add("-c", "--config", metavar="FILE", help="configuration file (default /etc/windlass/config.toml)")
    add("-l", "--log-level", metavar="LEVEL", choices=LEVELS, help=f"one of {', '.join(LEVELS)}")
    add("-a", "--address", metavar="PATH", help="the gRPC socket; the ttrpc socket is PATH.ttrpc")
    add("--root", metavar="DIR", help="directory for what must survive a reboot (default /var/lib/windlass)")
    add("--state", metavar="DIR", help="directory for what is lost at a reboot (default /run/windlass)")
    add("--containerd-paths", action="store_true", help="take containerd's paths as defaults instead of ours")
    commands = top.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    # prefix_chars, so that an option such as --help is left to the parser of the rest
    config = commands.add_parser(
        "config", help="print, check or migrate the configuration", add_help=False, prefix_chars="+"
    )
    config.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    adopt = commands.add_parser(
        "adopt", help="take over a containerd, or give it back", add_help=False, prefix_chars="+"
    )
    adopt.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    publish = commands.add_parser("publish", help="send an event from stdin to the daemon", allow_abbrev=False)
    publish.add_argument("--namespace", required=True, help="namespace of the event")
    publish.add_argument("--topic", required=True, help="topic of the event, such as /tasks/exit")
    hook = commands.add_parser("oci-hook", help="execute a hook with the container's values filled in")
    hook.add_argument("arguments", nargs=argparse.REMAINDER, help="program and its arguments")
    return top


def without_end_of_options(arguments: Sequence[str]) -> Sequence[str]:
    """Return what follows a first `--`, which ends options and which argparse leaves in a remainder."""
    return arguments[1:] if arguments[:1] == ["--"] else arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run `windlassd` and return its exit code; what stops it is said in one line for each reason."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except StartError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"windlassd: {line}\n")
        return 1


def installed_command(name: str) -> Callable[[Sequence[str], Path | None, Paths, Flags], int]:
    """Return a command that is a distribution of its own. Raises StartError when it is not installed."""
    from importlib.metadata import entry_points

    for each in entry_points(group=COMMANDS, name=name):
        command: Callable[[Sequence[str], Path | None, Paths, Flags], int] = each.load()
        return command
    raise StartError(f"{name} is not installed: pip install windlass-{name}")


def _run(options: argparse.Namespace) -> int:
    if options.command == "publish":
        from windlass.process.publish import publish

        return publish(options.address, options.namespace, options.topic)
    if options.command == "oci-hook":
        from windlass.process.ocihook import execute

        return execute(without_end_of_options(options.arguments))
    if options.command is None:
        gc.disable()  # what a start imports and makes stays; `windlass.process.daemon` enables it
    from windlass.config.loading import CONTAINERD, WINDLASS, Flags

    paths = CONTAINERD if options.containerd_paths else WINDLASS
    flags = Flags(options.root, options.state, options.address, options.log_level)
    path = Path(options.config) if options.config is not None else None
    if options.command == "config":
        from windlass.config.commands import run as run_config

        return run_config(options.rest, path, paths, flags)
    if options.command == "adopt":
        return installed_command("adopt")(options.rest, path, paths, flags)
    from windlass.process import daemon

    code = daemon.run(path, paths, flags)
    daemon.leave(code)
    return code
