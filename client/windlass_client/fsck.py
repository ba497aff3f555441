"""Checks what a daemon that is stopped has kept: its kernel starts the stores and what checks them, nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from windlass import discovery
from windlass.boot import Daemon
from windlass.config import factories
from windlass.config import loading as config
from windlass.config.loading import Config, Flags, Paths
from windlass.contracts.checks import CHECK, Problem
from windlass.discovery import Found
from windlass.errors import StartError
from windlass.plugin import State
from windlass.process import setup as process
from windlass_client.closure import closure


def fsck(path: Path | None, paths: Paths, flags: Flags, repair: bool, deep: bool) -> list[Problem]:
    """Return what is wrong below a daemon's root, mended where it can be if ``repair``.

    Raises StartError while a daemon runs on the root, and for what cannot be checked at all.
    """
    draft = config.read(path, paths, flags)
    installed = discovery.discover(draft.disabled)
    settings = draft.settle(installed)
    if not settings.root.is_dir():
        raise StartError(f"root {settings.root} does not exist; name the daemon's with --root, or its --config")
    installed += factories.made(settings.top, installed, draft.disabled)
    plugins = [entry.plugin for entry in installed if entry.plugin]
    needed = {plugin.uri for plugin in closure([each for each in plugins if each.type == CHECK], plugins)}
    logging.basicConfig(level=logging.ERROR)
    lock = process.hold(settings.root, wait=0)
    try:
        return asyncio.run(_check([entry for entry in installed if entry.uri in needed], settings, repair, deep))
    finally:
        os.close(lock)


async def _check(found: Sequence[Found], settings: Config, repair: bool, deep: bool) -> list[Problem]:
    daemon = Daemon(found, settings)
    await daemon.start()
    try:
        failed = [each for each in daemon.records if each.state == State.FAILED and each.type != CHECK.uri]
        checks = [each for each in daemon.of_type(CHECK.uri) if each.record.state == State.OK]
        if not checks:
            raise StartError(failed[-1].message if failed else "no plugin that checks is installed")
        problems = [Problem(each.uri, f"did not start: {each.message}", "see the daemon's log") for each in failed]
        for each in checks:
            # No deadline: a deep check of much data takes long, and its user can end it.
            problems += await asyncio.to_thread(each.provided(CHECK).check, repair, deep)
        return problems
    finally:
        await daemon.stop()
