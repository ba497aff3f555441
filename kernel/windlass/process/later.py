"""Imports what first calls of plugins need, when the daemon is ready: neither its start nor those calls wait for it."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Sequence

PAUSE = 0.1
"""Seconds for those who wait for the daemon: what they ask first needs none of it."""

logger = logging.getLogger(__name__)


def load(modules: Sequence[str], pause: float = PAUSE) -> None:
    """Import modules in a thread; it keeps no process from ending."""
    if modules:
        threading.Thread(target=_load, args=(tuple(modules), pause), name="later", daemon=True).start()


def _load(modules: Sequence[str], pause: float) -> None:
    time.sleep(pause)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 -- whatever a module raises, the call that needs it raises it again
            logger.warning("cannot import %s, which calls are going to need: %s", module, error)
