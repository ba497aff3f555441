"""The `windlass` command line: global options, and commands that are imported when they are called."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from windlass import __version__
from windlass.errors import Error, StartError
from windlass_client import rootless

if TYPE_CHECKING:
    from windlass_client.client import Client

ADDRESS = "/run/windlass/windlass.sock"

COMPLETE = "_WINDLASS_COMPLETE"
"""Set by the scripts of shells that want to complete a command line, as click has it."""

LONGEST_SENTENCE = 1000
OWN_FAILURE, NOT_EXECUTABLE, NO_SUCH_COMMAND = 125, 126, 127
"""Exit codes of `run` and `exec` when no process has one, as docker has them."""

# What runc and crun say of the command that they were to execute; docker's client looks for such words, too.
MISSING = re.compile(r'exec: "[^"]*": .*(?:not found|no such file)|executable file `[^`]*` not found')
REFUSED = re.compile(r'exec: "[^"]*": .*(?:permission denied|is a directory)|open executable: Permission denied')

COMMANDS: Mapping[str, str] = {
    "run": "run:run",
    "create": "run:create",
    "start": "lifecycle:start",
    "stop": "lifecycle:stop",
    "restart": "lifecycle:restart",
    "ps": "ps:ps",
    "exec": "exec:exec_",
    "attach": "lifecycle:attach",
    "logs": "logs:logs",
    "kill": "lifecycle:kill",
    "wait": "lifecycle:wait",
    "rm": "lifecycle:rm",
    "rename": "lifecycle:rename",
    "inspect": "inspect:inspect",
    "port": "port:port",
    "network": "network:network",
    "cp": "files:cp",
    "stats": "tasks:stats",
    "top": "tasks:top",
    "update": "tasks:update",
    "pause": "tasks:pause",
    "unpause": "tasks:unpause",
    "volume": "volumes:volume",
    "diff": "files:diff",
    "export": "files:export",
    "commit": "files:commit",
    "image": "images:image",
    "images": "imagelists:ls",
    "history": "imagelists:history",
    "tag": "imagenames:tag",
    "rmi": "imagenames:rm",
    "save": "archives:save",
    "load": "archives:load",
    "build": "build:build",
    "login": "logins:login",
    "logout": "logins:logout",
    "pull": "transfers:pull",
    "push": "transfers:push",
    "container": "management:container",
    "system": "system:system",
    "info": "system:info",
    "events": "daemon:events",
    "plugins": "plugins:plugins",
    "plugin": "plugin:plugin",
    "version": "daemon:version",
    "config": "daemon:config",
    "compose": "compose:compose",
    "fsck": "fsck:fsck",
    "doctor": "doctor:doctor",
}

OUTSIDE = ("doctor", "config")
"""Commands that are about the host, not about the namespaces of a plain user's daemon."""


@dataclass(frozen=True)
class Where:
    """Which daemon and which namespace the commands are about."""

    address: str
    namespace: str

    def client(self) -> Client:
        """Return a client; call it inside the event loop."""
        # grpc writes what it thinks to standard error; errors are ours to tell
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from windlass_client.client import Client

        return Client(self.address, self.namespace)


def where_of(context: click.Context) -> Where:
    """Return what the global options of a command line say that is not finished yet."""
    given = context.find_root().params
    return Where(given.get("address") or rootless.address(ADDRESS), given.get("namespace") or "default")


class Group(click.Group):
    """A group whose help says of each command the whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary(ctx, name)) for name in self.list_commands(ctx)])

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return the first sentence of a command's help."""
        command = self.get_command(ctx, name)
        return command.get_short_help_str(LONGEST_SENTENCE) if command else ""


class Commands(Group):
    """A group that imports a command's module when the command is asked for."""

    # Any: what click's own group takes, and click does not check it either.
    def __init__(self, name: str | None = None, *, table: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, then those that were added."""
        return list(dict.fromkeys([*self._table, *super().list_commands(ctx)]))

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return the first sentence of a command's help from the text of its module, which is not imported for that."""
        if name not in self._table:
            return super().summary(ctx, name)
        module, attribute = self._table[name].split(":")
        text = Path(__file__).with_name("commands").joinpath(f"{module}.py").read_text()
        found = re.search(rf'^def {attribute}\(.*?"""(.*?)(?:\.\s|\.?""")', text, re.DOTALL | re.MULTILINE)
        return " ".join(found[1].split()) + "." if found else ""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._table:
            return super().get_command(ctx, cmd_name)
        module, attribute = self._table[cmd_name].split(":")
        command = getattr(import_module(f"windlass_client.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        if COMPLETE in os.environ:
            from windlass_client.completion import teach

            teach(command, self.name or "", where_of)
        return command


@click.group(
    cls=Commands, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "-a",
    "--address",
    envvar=["WINDLASS_ADDRESS", "CONTAINERD_ADDRESS"],
    default=ADDRESS,
    show_default=True,
    help="The daemon's socket.",
)
@click.option(
    "-n",
    "--namespace",
    envvar="CONTAINERD_NAMESPACE",
    default="default",
    show_default=True,
    help="The namespace that images and containers are in.",
)
@click.version_option(__version__, "-v", "--version", prog_name="windlass")
@click.pass_context
def windlass(context: click.Context, address: str, namespace: str) -> None:
    """Run containers on Windlass, or on any daemon with containerd's API."""
    if os.geteuid() and context.get_parameter_source("address") is ParameterSource.DEFAULT:
        outside = context.invoked_subcommand in OUTSIDE or not rootless.enter()
        address = rootless.address(address) if outside else address
    context.obj = Where(address, namespace)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every failure is one line."""
    try:
        code = windlass.main(args=argv if argv is None else list(argv), prog_name="windlass", standalone_mode=False)
        sys.stdout.flush()
    except (Error, StartError) as error:
        return fail(str(error))
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Python would report it once more when it closes standard output at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        return fail(f"{error.filename or 'system'}: {error.strerror or error}")
    return code if isinstance(code, int) else 0


def fail(message: str) -> int:
    """Print what is wrong, on one line, and return the exit code; a name in it may be a stranger's."""
    from windlass_client.output import printable

    line = " ".join(message.split()) if "\n" in message else message
    sys.stderr.write(f"windlass: {printable(line)}\n")
    return 1


class WrongUse(click.UsageError):
    """A command line that is wrong, where an exit code of 2 could be a process's."""

    exit_code = OWN_FAILURE


class ProcessCommand(click.Command):
    """A command whose exit code is a process's: its own failures have codes that processes seldom use."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # as click has it
    ) -> click.Context:
        """Read the command line."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise WrongUse(error.format_message(), error.ctx) from None

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise WrongUse(error.format_message(), error.ctx) from None
        except (Error, StartError) as error:
            fail(str(error))
            return exit_code(str(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"{error.filename or 'system'}: {error.strerror or error}")
            return OWN_FAILURE


def exit_code(message: str) -> int:
    """Return the exit code for an error, which may be an OCI runtime's about the command that it was to execute."""
    if MISSING.search(message):
        return NO_SUCH_COMMAND
    return NOT_EXECUTABLE if REFUSED.search(message) else OWN_FAILURE
