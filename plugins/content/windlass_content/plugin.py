"""Registers the content store."""

from __future__ import annotations

from windlass.contracts.content import CONTENT, ContentStore
from windlass.plugin import InitContext, Plugin


def init(context: InitContext) -> ContentStore:
    """Open the store in the plugin's root."""
    from windlass_content.store import LocalStore

    store = LocalStore(context.root)
    context.meta.exports["root"] = str(context.root)
    return store


PLUGIN = Plugin(CONTENT, id="content", init=init)
