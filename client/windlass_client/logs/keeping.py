"""What a client leaves for the shim to execute: a small program for each container, which keeps its log."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from windlass.errors import InvalidArgument
from windlass_client import datadir
from windlass_client.arguments import parse_size
from windlass_client.datadir import DataDirectory

PROGRAM = "keeper.py"
DRIVERS = ("json-file", "none")
MAX_FILES = 1000

TEXT = """\
# Written by windlass: keeps the output of container {id}.
import sys
sys.path.append({path!r})
from windlass_client.logs.program import main
main({directory!r}, {log!r}, max_size={max_size}, max_files={max_files}, terminal={terminal},
     beside={beside!r}, afterwards={afterwards!r}, environment={environment!r})
"""


@dataclass(frozen=True)
class LogOptions:
    """How a container's log is kept: `--log-driver` and `--log-opt`."""

    driver: str = "json-file"
    max_size: int = 20 << 20
    max_files: int = 5


@dataclass(frozen=True)
class Companions:
    """Commands that run next to a container, and when it has ended."""

    beside: Sequence[str] = ()
    afterwards: Sequence[str] = ()


def parse_log_options(driver: str, options: Sequence[str]) -> LogOptions:
    """Return what `--log-driver` and `--log-opt` say. Raises InvalidArgument."""
    if driver not in DRIVERS:
        raise InvalidArgument(f"log driver {driver[:40]!r} is not known; use {' or '.join(DRIVERS)}")
    found = LogOptions(driver)
    for option in options:
        key, _, value = option.partition("=")
        if key == "max-size":
            found = replace(found, max_size=0 if value == "-1" else parse_size(value))
        elif key == "max-file" and value.isascii() and value.isdigit() and 0 < int(value) <= MAX_FILES:
            found = replace(found, max_files=int(value))
        else:
            raise InvalidArgument(f"log option {option[:60]!r} is not known; use max-size=10m and max-file=3")
    return found


def prepare(data: DataDirectory, id: str, terminal: bool, log: LogOptions, companions: Companions) -> str:
    """Write a container's program and return the URI by which the shim executes it."""
    directory = datadir.directory(data.container(id))
    text = TEXT.format(
        id=id,
        path=str(Path(__file__).parents[2]),
        directory=str(directory),
        log=str(data.log(id)) if log.driver != "none" else "",
        max_size=log.max_size,
        max_files=log.max_files,
        terminal=terminal,
        beside=tuple(companions.beside),
        afterwards=tuple(companions.afterwards),
        environment={datadir.VARIABLE: str(datadir.root())},
    )
    datadir.write(directory / PROGRAM, text)
    return uri(directory / PROGRAM)


def uri(program: Path) -> str:
    """Return a URI by which a shim runs a program of Python, without what its start would import.

    It has one key, because containerd gives several in any order.
    """
    return f"binary://{quote(sys.executable)}?-IS={quote(str(program))}"


def command(module: str, *arguments: str) -> Sequence[str]:
    """Return a command of the client's that runs without a terminal, and imports nothing from where it is started."""
    return (sys.executable, "-P", "-m", module, *arguments)


def describe(log: LogOptions) -> Mapping[str, object]:
    """Return what the container's label says of its log."""
    return {"driver": log.driver, "max-size": log.max_size, "max-file": log.max_files}


def restored(document: Mapping[str, object]) -> LogOptions:
    """Return what `describe` made a document of."""
    driver, size, files = (document.get(key) for key in ("driver", "max-size", "max-file"))
    if not (isinstance(driver, str) and isinstance(size, int) and isinstance(files, int)):
        raise InvalidArgument("the container's label for its log was changed; remove the container and run it again")
    return LogOptions(driver, size, files)
