"""`--format` of commands that list, as docker has it: a table, a template for each row, or JSON, one object a line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from windlass_client.output import json_text, printable

Row = Mapping[str, object]
GAP = "   "
UNITS = (("hours", 1, 48), ("days", 24, 24 * 14), ("weeks", 24 * 7, 24 * 60), ("months", 24 * 30, 24 * 730))
"""Name, hours of one, and the hours from which on the next is used."""


def rows(records: Sequence[Row], columns: Mapping[str, str], form: str = "", heading: bool = True) -> None:
    """Print records; ``columns`` has the heading of each field, in the order of the table.

    ``form`` is what `--format` says: empty or ``table`` for these columns, ``json``, ``table TEMPLATE`` or a template.
    """
    if form == "json":
        for record in records:
            sys.stdout.write(json_text(record) + "\n")
    elif form in ("", "table"):
        cells = [[_cell(record.get(name)) for name in columns] for record in records]
        table([list(columns.values()), *cells] if heading else cells)
    else:
        _templated(records, columns, form)


def _templated(records: Sequence[Row], columns: Mapping[str, str], form: str) -> None:
    from windlass_client.templates import Template

    text = form.replace("\\t", "\t").replace("\\n", "\n")
    if text.startswith("table "):
        template = Template(text.removeprefix("table ").strip())
        names = {**columns, **{name: name.upper() for record in records[:1] for name in record if name not in columns}}
        head = template.render(names)
        table([line.split("\t") for line in (head, *map(template.render, records))])
        return
    template = Template(text)
    for record in records:
        sys.stdout.write(printable_lines(template.render(record)) + "\n")


def table(cells: Sequence[Sequence[str]]) -> None:
    """Print lines of cells in columns."""
    width = max((len(line) for line in cells), default=0)
    widths = [max((len(line[at]) for line in cells if at < len(line)), default=0) for at in range(width)]
    for line in cells:
        text = GAP.join(value.ljust(widths[at]) for at, value in enumerate(line))
        sys.stdout.write(printable(text).rstrip() + "\n")


def printable_lines(text: str) -> str:
    """Return text without what a terminal would obey; tabs and line ends stay."""
    return "".join(char if char.isprintable() or char in "\t\n" else "?" for char in text)


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    return "" if value is None else ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def age(seconds: float) -> str:
    """Return a duration as docker says it: ``Less than a second``, ``About an hour``, ``3 weeks``."""
    seconds = max(0, int(seconds))
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    for unit, hours_of, limit in UNITS:
        if hours < limit:
            return f"{hours // hours_of} {unit}"
    return f"{hours // (24 * 365)} years"


def size(count: float) -> str:
    """Return bytes as docker shows them, in powers of 1000: ``13.3kB``, ``7.8MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g}{unit}" if value < 1000 else f"{value:.0f}{unit}"
