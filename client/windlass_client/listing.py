"""What listings and `inspect` print, by docker's rules for --format, and work on several names one after the other."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from windlass.errors import Error, NotFound
from windlass_client import cli
from windlass_client.output import json_text

Row = Mapping[str, object]


def fail(error: Error) -> None:
    """Print what is wrong with one of several."""
    sys.stdout.flush()
    cli.fail(str(error))


async def each(names: Sequence[str], work: Callable[[str], Awaitable[object]], force: bool = False) -> int:
    """Do the work for each name, print the name, and go on after a failure; return 1 if there was one, else 0.

    With ``force`` a name that does not exist is no failure.
    """
    code = 0
    for name in names:
        try:
            await work(name)
        except NotFound as error:
            if not force:
                fail(error)
                code = 1
            continue
        except Error as error:
            fail(error)
            code = 1
            continue
        sys.stdout.write(f"{name}\n")
    return code


def inspect(names: Sequence[str], find: Callable[[str], object], form: str) -> int:
    """Print the documents of all names that there are, as a JSON list or by a template; return 1 if one is missing."""
    found, code = [], 0
    for name in names:
        try:
            found.append(find(name))
        except Error as error:
            fail(error)
            code = 1
    documents(found, form)
    return code


def documents(found: Sequence[object], form: str) -> None:
    """Print documents as docker's inspect does: a JSON list, each on a line of its own, or by a template."""
    if not form:
        sys.stdout.write(json_text(found, indent=4) + "\n")
        return
    from windlass_client.format import printable_lines
    from windlass_client.templates import Template

    template = Template("{{json .}}" if form == "json" else form.replace("\\t", "\t").replace("\\n", "\n"))
    for document in found:
        if not isinstance(document, Mapping):
            raise TypeError("a document is a mapping")
        sys.stdout.write(printable_lines(template.render(document)) + "\n")
