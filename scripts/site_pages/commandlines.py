"""The pages of the command lines: each command's ``--help``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import click

from site_pages.markdown import fence
from windlass.config import commands as config
from windlass.process import cli as daemon
from windlass_adopt import cli as adopt
from windlass_client.cli import windlass

WIDTH = 100
DEEPEST = 4
"""Level of headings below which commands of commands stand side by side."""


def client_page() -> str:
    """Return the page of `windlass` and all its commands."""
    parts = ["# `windlass`"]
    for command, context in _all(windlass, _context(windlass, "windlass")):
        path = context.command_path
        level = min(len(path.split()), DEEPEST)
        parts += [*([f"{'#' * level} `{path}`"] if level > 1 else []), fence("text", command.get_help(context))]
    return "\n\n".join(parts)


def _all(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner and not inner.hidden:
                yield from _all(inner, _context(inner, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH)


def daemon_page() -> str:
    """Return the page of `windlassd` and its commands."""
    parts = ["# `windlassd`", fence("text", daemon.parser().format_help())]
    for name, parser in _subparsers(config.parser("windlassd")):
        parts += [f"## `windlassd config {name}`", fence("text", parser.format_help())]
    parts += ["## `windlassd adopt`", fence("text", adopt.parser().format_help())]
    return "\n\n".join(parts)


def _subparsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    # argparse has no other way to list them.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
