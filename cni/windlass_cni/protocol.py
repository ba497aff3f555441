"""What passes between us and a CNI plugin, without executing one (CNI specification, sections 2 and 3).

`execute` and `networks` wait on an event loop; `blocking` is for programs that have to start fast, without asyncio.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from windlass.errors import Error, FailedPrecondition, Unknown
from windlass_cni.config import Json, Network, Object, Plugin

OUTPUT_LIMIT = 4 << 20
"""Bytes that a plugin may print; a result with thousands of routes is far smaller."""
ERROR_LIMIT = 32 << 10
TRY_AGAIN = 11
"""The error code of a plugin that may work a moment later."""

CHECKS_SINCE = "0.4.0"
STATUS_SINCE = "1.1.0"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's end of a network: its ID, the path of its network namespace, and the interface in it.

    ``netns`` is empty when the namespace is gone: plugins then free what they can.
    """

    container: str
    netns: str
    interface: str
    args: tuple[tuple[str, str], ...] = ()
    """CNI_ARGS, in order."""


def find(directories: Sequence[Path], name: str) -> Path:
    """Return the program of a plugin. Raises FailedPrecondition with the directories that lack it."""
    for directory in directories:
        path = directory / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
    places = ", ".join(map(str, directories)) or "no directory"
    raise FailedPrecondition(f"CNI plugin {name} is not in {places}; install it there or set bin_dirs")


def environment(directories: Sequence[Path], command: str, attachment: Attachment | None) -> dict[str, str]:
    """Return the environment of a plugin."""
    variables = {**os.environ, "CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, directories))}
    # A plugin that is asked for VERSION, STATUS or GC must not take over what we were started with.
    for key in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"):
        variables.pop(key, None)
    if attachment is not None:
        variables |= {
            "CNI_CONTAINERID": attachment.container,
            "CNI_NETNS": attachment.netns,
            "CNI_IFNAME": attachment.interface,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in attachment.args),
        }
    return variables


def execution_conf(network: Network, plugin: Plugin, args: Object, previous: Object | None) -> Object:
    """Return what a plugin gets on its standard input (CNI specification, section 3, "Deriving ...")."""
    conf: dict[str, Json] = {key: value for key, value in plugin.conf.items() if key not in ("capabilities", "plugins")}
    conf |= {"name": network.name, "cniVersion": network.version}
    asked = {name: value for name, value in args.items() if name in plugin.capabilities}
    if asked:
        conf["runtimeConfig"] = asked
    if previous is not None:
        conf["prevResult"] = previous
    return conf


def capability_args(values: Mapping[str, Json]) -> Object:
    """Return arguments for capabilities without those that are empty: no ports, no DNS, no addresses."""
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def answer(name: str, command: str, code: int, output: bytes, errors: bytes) -> bytes:
    """Return what a plugin that ended with ``code`` printed. Raises Unknown with what it says is wrong."""
    if len(output) > OUTPUT_LIMIT:
        raise Unknown(f"CNI plugin {name} printed more than {OUTPUT_LIMIT} bytes at {command}")
    if code:
        raise failure(name, command, code, output, errors)
    return output


def failure(name: str, command: str, code: int, output: bytes, errors: bytes) -> Error:
    """Return the error of a plugin that ended with ``code``: its own words, or what it printed."""
    document = _object(output)
    if document is not None and isinstance(document.get("msg"), str):
        details = document.get("details")
        text = f"{document['msg']}: {details}" if details else str(document["msg"])
        reason = f"{text} (code {document.get('code')})"
    else:
        printed = (errors or output).decode(errors="replace").strip()
        ended = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        reason = f"{ended}: {printed[-1000:]}" if printed else ended
    return Unknown(f"CNI plugin {name} failed at {command}: {_one_line(reason)}")


def result_of(name: str, command: str, output: bytes) -> Mapping[str, Json]:
    """Parse what a plugin printed. Raises Unknown for what is not a JSON object."""
    document = _object(output)
    if document is None:
        shown = _one_line(output[:200].decode(errors="replace"))
        raise Unknown(f"CNI plugin {name} printed no JSON object at {command}: {shown!r}")
    return document


def _object(output: bytes) -> Mapping[str, Json] | None:
    try:
        document: Json = json.loads(output)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, Mapping) else None


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def joined(problems: Sequence[Error]) -> Error:
    """Return one error for several, of the class of the first."""
    return problems[0] if len(problems) == 1 else type(problems[0])("; ".join(map(str, problems)))
