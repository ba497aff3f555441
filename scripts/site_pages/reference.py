"""Reference pages made from code, anew for each site, so that they are never out of date."""

from __future__ import annotations

import re
from pathlib import Path

from site_pages import commandlines, contracts
from site_pages.markdown import fence
from windlass import discovery
from windlass.config import loading
from windlass.config.commands import default_text

BLOCK = re.compile(r"^\[plugins\.\"([^\"]+)\"\]$", re.MULTILINE)


def write(place: Path) -> None:
    """Write all reference pages into a new directory, ``place``."""
    place.mkdir(parents=True)
    for name, text in {
        "commands": commandlines.client_page(),
        "daemon": commandlines.daemon_page(),
        "configuration": configuration_page(),
        "hooks": contracts.hooks_page(),
        "plugins": contracts.plugins_page(),
    }.items():
        (place / f"{name}.md").write_text(text)


def configuration_page() -> str:
    """Return the page of all keys of `config.toml`, as `windlassd config default` prints them."""
    text = default_text(loading.WINDLASS, discovery.discover())
    starts = list(BLOCK.finditer(text))
    ends = [*(each.start() for each in starts[1:]), len(text)]
    parts = [
        "# Configuration",
        "What holds where no file says otherwise. [Operating](../docs/operating.md#configuration) explains files.",
    ]
    parts += ["## Keys outside of plugins", fence("toml", text[: starts[0].start()])]
    for start, end in zip(starts, ends, strict=True):
        parts += [f"## {start[1]}", fence("toml", text[start.start() : end])]
    return "\n\n".join(parts)
