"""Runs one command of `windlass-oci` and writes its error where the caller wants it."""

from __future__ import annotations

import os
import sys
import time

from windlass.errors import Error
from windlass_linux import sealing
from windlass_oci_runtime.cli.options import Options, Usage, read
from windlass_oci_runtime.report import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GLOBAL = {
    "root": "text",
    "log": "text",
    "log-format": "text",
    "debug": "",
    "systemd-cgroup": "",
    "rootless": "text",
    "criu": "text",
    "version": "",
    "help": "",
}
MAKING = {"bundle": "text", "console-socket": "text", "pid-file": "text", "no-pivot": "", "no-new-keyring": ""}
RUNNING = {**MAKING, "preserve-fds": "number", "detach": "", "keep": "", "no-subreaper": ""}
LIMITS = (
    *("blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period", "cpu-rt-runtime"),
    *("cpuset-cpus", "cpuset-mems", "cpu-idle", "kernel-memory", "kernel-memory-tcp", "memory", "memory-reservation"),
    *("memory-swap", "pids-limit"),
)
COMMANDS: dict[str, tuple[str, dict[str, str]]] = {
    "create": ("making", {**MAKING, "preserve-fds": "number"}),
    "run": ("making", RUNNING),
    "start": ("life", {}),
    "state": ("looking", {}),
    "kill": ("life", {"all": ""}),
    "delete": ("life", {"force": ""}),
    "exec": (
        "making",
        {
            **dict.fromkeys(("console-socket", "cwd", "user", "process", "pid-file", "process-label"), "text"),
            **dict.fromkeys(("env", "additional-gids", "cap"), "list"),
            **dict.fromkeys(("tty", "detach", "no-new-privs", "ignore-paused"), ""),
            "apparmor": "text",
            "preserve-fds": "number",
            "cgroup": "text",
        },
    ),
    "ps": ("looking", {"format": "text"}),
    "list": ("looking", {"format": "text", "quiet": ""}),
    "pause": ("life", {}),
    "resume": ("life", {}),
    "update": ("limits", {"resources": "text", **dict.fromkeys(LIMITS, "text")}),
    "events": ("looking", {"interval": "text", "stats": ""}),
    "features": ("documents", {}),
    "spec": ("documents", {"bundle": "text", "rootless": ""}),
}
LETTERS = {
    "": {"v": "version", "h": "help"},
    "exec": {
        "e": "env",
        "t": "tty",
        "u": "user",
        "g": "additional-gids",
        "p": "process",
        "d": "detach",
        "c": "cap",
        "h": "help",
    },
}
COMMON = {"b": "bundle", "d": "detach", "a": "all", "f": "format", "q": "quiet", "r": "resources", "h": "help"}
EXEC_FAILED = 255
NEEDS_ID = frozenset(COMMANDS) - {"list", "features", "spec"}
HELP = """\
windlass-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND [OPTIONS] [ID] [...]

An OCI runtime with runc's command line: {commands}.
The options of a command are runc's. --root is where containers are kept, {root}.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what goes wrong is one line, and in the log if one is named."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = None
    try:
        options = read(arguments, GLOBAL, LETTERS[""])
        if options.has("version"):
            return _version()
        if options.has("help") or not options.operands:
            return _help()
        if argv is None and COMMANDS.get(options.operands[0], ("",))[0] == "making":
            # A copy of this process enters a container, which must find no program of the host's in it to write.
            sealing.execute(sys.executable, sys.orig_argv)
        return _command(options, *options.operands)
    except Usage as error:
        return _tell(options, str(error))
    except (Error, Failure) as error:
        return _tell(options, str(error))
    except OSError as error:
        return _tell(options, _words(error))


def _command(options: Options, name: str, *arguments: str) -> int:
    if name == "help":
        return _help()
    if name in ("checkpoint", "restore"):
        raise Usage(f"{name} is not supported by windlass-oci; run the container with runc for it")
    if name not in COMMANDS:
        raise Usage(f"no command {name!r}; there are {', '.join(COMMANDS)}")
    module, kinds = COMMANDS[name]
    letters = {**COMMON, **LETTERS.get(name, {})}
    if name == "delete":
        letters["f"] = "force"
    given = read(arguments, {**kinds, "help": ""}, letters)
    if given.has("help"):
        return _help()
    if name in NEEDS_ID and not given.operands:
        raise Usage(f'"{name}" requires the ID of a container')
    if options.has("systemd-cgroup") and name in ("create", "run"):
        raise Usage("--systemd-cgroup is not supported by windlass-oci; use a cgroupsPath that is a path")
    from importlib import import_module

    command = getattr(import_module(f"windlass_oci_runtime.cli.{module}"), f"{name}_command")
    try:
        return int(command(_root(options), given) or 0)
    except (Error, Failure, OSError) as error:
        what = [name, *given.operands[:1]]
        raise Error(f"{' '.join(what)[:100]} failed: {_words(error)}") from error


def _words(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _root(options: Options) -> str:
    if root := options.text("root"):
        return os.path.abspath(root)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return "/run/windlass-oci" if os.geteuid() == 0 or not runtime else f"{runtime}/windlass-oci"


def _version() -> int:
    from importlib.metadata import version

    from windlass_oci_runtime.state import VERSION

    sys.stdout.write(f"windlass-oci version {version('windlass-oci-runtime')}\nspec: {VERSION}\n")
    return 0


def _help() -> int:
    sys.stdout.write(HELP.format(commands=" ".join(COMMANDS), root="/run/windlass-oci"))
    return 0


def _tell(options: Options | None, message: str) -> int:
    """Write an error as runc does: to the log, if there is one, and to standard error."""
    log = options.text("log") if options else ""
    # 255 tells an exec that failed from a program that ended with 1, as far as runc's callers can tell.
    code = EXEC_FAILED if options and options.operands[:1] == ["exec"] else 1
    if not log:
        sys.stderr.write(f"windlass-oci: {message}\n")
        return code
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options and options.text("log-format") == "json":
        import json

        line = json.dumps({"level": "error", "msg": message, "time": now})
    else:
        line = f'time="{now}" level=error msg={message!r}'
    try:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        sys.stderr.write(f"windlass-oci: log {log}: {error.strerror}\n")
    sys.stderr.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
