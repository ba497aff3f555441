"""Commands that show what there is: state, list, ps, events."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time

from windlass.errors import NotFound
from windlass_oci_runtime import cgroups
from windlass_oci_runtime.cli.options import Options, Usage
from windlass_oci_runtime.state import STOPPED, Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass_oci_runtime.json_types import Document

KEYS = ("ociVersion", "id", "pid", "status", "bundle", "rootfs", "created")
COLUMNS = (
    ("ID", "id"),
    ("PID", "pid"),
    ("STATUS", "status"),
    ("BUNDLE", "bundle"),
    ("CREATED", "created"),
    ("OWNER", "owner"),
)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def described(container: Container) -> dict[str, object]:
    """Return a container's state as runc shows it. Raises NotFound."""
    found = container.read()
    status = container.status(found)
    shown = {**{name: found[name] for name in KEYS if name in found}, "status": status}
    if status == STOPPED:
        shown["pid"] = 0
    if found["annotations"]:
        shown["annotations"] = found["annotations"]
    uid = os.stat(container.directory).st_uid
    try:
        shown["owner"] = pwd.getpwuid(uid).pw_name
    except KeyError:
        shown["owner"] = f"#{uid}"
    return shown


def state_command(root: str, options: Options) -> None:
    """Print a container's state."""
    _print(described(Container(root, options.operands[0])))


def _print(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def list_command(root: str, options: Options) -> None:
    """Print all containers."""
    containers = []
    for name in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        try:
            if not name.startswith("."):
                containers.append(described(Container(root, name)))
        except NotFound:
            continue  # half made, or removed just now
    if options.has("quiet"):
        sys.stdout.write("".join(f"{each['id']}\n" for each in containers))
    elif _format(options) == "json":
        sys.stdout.write((json.dumps(containers) if containers else "null") + "\n")
    else:
        rows = [[title for title, _ in COLUMNS], *([str(each[key]) for _, key in COLUMNS] for each in containers)]
        _table(rows)


def _format(options: Options) -> str:
    wanted = options.text("format", "table")
    if wanted not in ("table", "json"):
        raise Usage(f"invalid format option {wanted!r}; use table or json")
    return wanted


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(12, *(len(row[column]) + 3 for row in rows)) for column in range(len(rows[0]))]
    for row in rows:
        sys.stdout.write("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def ps_command(root: str, options: Options) -> None:
    """Print a container's processes: their pids, or what `ps` says of them."""
    found = Container(root, options.operands[0]).read()
    pids = cgroups.processes(found["cgroups"])
    if _format(options) == "json":
        sys.stdout.write(json.dumps(pids) + "\n")
        return
    command = ["ps", *(options.operands[1:] or ["-ef"])]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise Usage("couldn't find PID field in the output of ps; leave the column in")
    column = titles.index("PID")
    mine = [line for line in lines[1:] if int(line.split()[column]) in pids]
    sys.stdout.write("\n".join([lines[0], *mine, ""]))


def events_command(root: str, options: Options) -> None:
    """Print what a container uses, once or again and again until it ends."""
    from windlass_oci_runtime import measuring

    container = Container(root, options.operands[0])
    interval = _seconds(options.text("interval", "5s"))
    while True:
        found: Document = container.read()
        if container.status(found) == STOPPED:
            if options.has("stats"):
                raise NotFound(f"container {container.id} is not running")
            return
        stats = {"type": "stats", "id": container.id, "data": measuring.measure(found["cgroups"])}
        sys.stdout.write(json.dumps(stats) + "\n")
        sys.stdout.flush()
        if options.has("stats"):
            return
        time.sleep(interval)


def _seconds(text: str) -> float:
    for unit in ("ms", "s", "m", "h"):
        digits = text.removesuffix(unit)
        if digits != text and digits.replace(".", "", 1).isdecimal() and float(digits) > 0:
            return float(digits) * UNITS[unit]
    raise Usage(f"duration interval must be greater than 0, such as 5s, not {text!r}")
