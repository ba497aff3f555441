"""Manual pages from the text that `--help` prints: of click's commands, and of argparse's parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import click

from windlass_install.roff import Page, definitions, paragraphs

CLIENT, DAEMON = "windlass(1)", "windlassd(8)"


def pages() -> Iterator[Page]:
    """Yield the pages of windlass, of windlassd, and of all their commands."""
    from windlass.config import commands as config
    from windlass.process import cli as daemon
    from windlass_adopt import cli as adopt
    from windlass_client import cli as client

    own = {"config": config.parser("windlassd"), "adopt": adopt.parser()}
    yield from of_click(client.windlass, "windlass")
    yield from of_argparse(daemon.parser(), "windlassd", own)


def of_click(command: click.Command, path: str) -> Iterator[Page]:
    """Yield the page of a command and those of the commands below it."""
    context = click.Context(command, info_name=path)
    below = _below(command, context)
    usage = " ".join(command.collect_usage_pieces(context))
    given = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    options = [record for each in given if (record := each.get_help_record(context))]
    parts = [
        ("DESCRIPTION", paragraphs(click.unstyle(command.help or ""))),
        ("OPTIONS", definitions(options)),
        ("COMMANDS", definitions((name, _summary(each)) for name, each in below)),
        ("ENVIRONMENT", definitions(_variables(given))),
    ]
    links = tuple(f"{_page_name(path)}-{name}(1)" for name, _ in below)
    others = (DAEMON,) if path == "windlass" else (CLIENT,)
    yield Page(_page_name(path), 1, _summary(command), f"{path} {usage}".strip(), parts, links + others)
    for name, each in below:
        yield from of_click(each, f"{path} {name}")


def _below(command: click.Command, context: click.Context) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return []
    found = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return [(name, each) for name, each in found if each is not None and not each.hidden]


def _page_name(path: str) -> str:
    return path.replace(" ", "-")


def _summary(command: click.Command) -> str:
    """Return the first sentence of a command's help, for the list of commands and for whatis(1)."""
    return command.get_short_help_str(1000).rstrip(".")


def _variables(options: Sequence[click.Option]) -> Iterator[tuple[str, str]]:
    for each in options:
        if each.envvar:
            names = [each.envvar] if isinstance(each.envvar, str) else each.envvar
            yield ", ".join(names), f"The value of {each.opts[-1]} where the command line has none."


Parsers = Mapping[str, argparse.ArgumentParser]


def of_argparse(parser: argparse.ArgumentParser, path: str, own: Parsers = MappingProxyType({})) -> Iterator[Page]:
    """Yield the page of a parser and those of the commands below it, of which some have parsers of their ``own``."""
    commands = _subparsers(parser)
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ").removeprefix(f"{path} ")
    formatter = argparse.HelpFormatter(parser.prog)
    options = [
        # the formatter's own text for an option, underscore or not: there is no other way to it
        (formatter._format_action_invocation(action), formatter._expand_help(action) if action.help else "")
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]
    parts = [
        ("DESCRIPTION", paragraphs(parser.description or "")),
        ("OPTIONS", definitions(options)),
        ("COMMANDS", definitions((name, summary) for name, _, summary in commands)),
    ]
    links = tuple(f"{_page_name(path)}-{name}(8)" for name, _, _ in commands)
    summary = (parser.description or f"a command of {path.rpartition(' ')[0]}").partition(". ")[0].rstrip(".")
    others = (CLIENT,) if path == "windlassd" else (DAEMON,)
    yield Page(_page_name(path), 8, summary, _synopsis(path, usage), parts, links + others)
    for name, each, about in commands:
        found = own.get(name, each)
        found.description = found.description or about
        yield from of_argparse(found, f"{path} {name}")


def _synopsis(path: str, usage: str) -> str:
    """Return a usage that begins with the command, also where options of its own go in between."""
    return usage if usage.startswith(path.partition(" ")[0]) else f"{path} {usage}"


def _subparsers(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser, str]]:
    """Return the commands of a parser: name, parser and summary."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            found += [(name, each, helps[name]) for name, each in action.choices.items() if name in helps]
    return found
