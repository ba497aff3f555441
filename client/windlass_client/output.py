"""What commands print: tables for people, JSON for machines, progress on a terminal and plain lines elsewhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

OBEYED = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON does not escape by itself: controls, and what turns the direction of text."""

Progress = Callable[[str, str, int, int], None]


def rows(records: Sequence[Mapping[str, object]], columns: Sequence[str], as_json: bool) -> None:
    """Print records, which have all that is known, as a JSON list or as a table of some columns."""
    if as_json:
        document(list(records))
        return
    cells = [[column.upper() for column in columns]]
    cells += [[cell(record.get(column)) for column in columns] for record in records]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    for line in cells:
        text = "   ".join(value.ljust(width) for value, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")


def document(content: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json_text(content, indent=2) + "\n")


def json_text(content: object, indent: int | None = None) -> str:
    """Return JSON for people and machines: letters of all languages are as they are, what a terminal obeys is not."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False)
    return OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def cell(value: object) -> str:
    """Return a value as a cell of a table; nothing in it can move the cursor."""
    if value is None or value in ("", [], ()):
        return "-"
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return printable(text)


def printable(text: str) -> str:
    """Return text without what a terminal would obey: names come from images and from other clients."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def size(count: int) -> str:
    """Return bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(timestamp: Timestamp) -> str:
    """Return a time in RFC 3339, to the second."""
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local(seconds: float) -> str:
    """Return a time as docker's client prints it, in the zone of this machine: ``2026-12-01 04:05:00 +0000 UTC``."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """Yield what is to be called as work goes on; it draws bars if standard error is a terminal."""
    if quiet:
        from windlass_images.unpack import ignore

        yield ignore
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _line


def _line(verb: str, what: str, done: int, total: int) -> None:
    if done == total:
        amount = f" ({size(total)})" if total else ""
        sys.stderr.write(f"{verb} {printable(what)}".rstrip() + f"{amount}\n")


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn()
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}

    def show(verb: str, what: str, done: int, total: int) -> None:
        bars.start()
        key = what or verb
        label = escape(f"{verb} {short(printable(what))}".rstrip())
        if key not in tasks:
            tasks[key] = bars.add_task(label, total=None)
        # a step without an amount is done when it is reported
        bars.update(tasks[key], completed=done if total else 1, total=total or 1, description=label)

    try:
        yield show
    finally:
        if tasks:
            bars.stop()


def short(text: str) -> str:
    """Return the tail of a name, with a digest cut to what tells it apart."""
    text = text.rpartition("/")[2]
    return text.rpartition(":")[2][:12] if len(text) > 40 else text
