"""Configuration of older versions to version 4, one step at a time.

A step changes one file's table in place: first what the kernel knows, then what
each plugin's ``migrate`` does to the ``plugins`` table (docs/containerd 1.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from windlass.config.known import (
    DEBUG_SERVER,
    GRPC_SERVER,
    METRICS_SERVER,
    PROMETHEUS,
    TCP_SERVER,
    TTRPC_SERVER,
    uri_of,
)
from windlass.config.toml import Mark, Table
from windlass.errors import StartError, with_class
from windlass.plugin import Plugin

VERSION = 4
"""The configuration version that the kernel works with."""


def migrate(table: Table, plugins: Iterable[Plugin[object]]) -> None:
    """Bring one file's table to `VERSION`; ``plugins`` in start order, a later one sees what earlier ones did."""
    start = table.get("version", 0)
    if start == VERSION:
        return
    origins = list(_leaves(table))
    plugins = list(plugins)
    for version in range(start, VERSION):
        if version < 2:
            _name_by_uri(table)
        if version == 3:
            _move_sections(table)
        for plugin in plugins:
            if plugin.migrate:
                try:
                    plugin.migrate(version, blocks(table))
                except Exception as error:
                    reason = (
                        f"plugin {plugin.uri} cannot migrate its settings from version {version}: {with_class(error)}"
                    )
                    remedy = "mend or disable it, or write the file in the newest version"
                    raise StartError(f"{table.mark.file}: {reason}; {remedy}") from error
    table.put("version", VERSION, table.place("version"))
    if "plugins" in table:
        table["plugins"] = _settle(table["plugins"], table.place("plugins"), origins)


def blocks(table: Table) -> Table:
    """Return the ``plugins`` table, an empty one put there if need be."""
    if "plugins" not in table:
        table.put("plugins", Table(Mark(table.mark.file)), table.mark)
    found: Table = table["plugins"]
    return found


def _name_by_uri(table: Table) -> None:
    """Step 1 to 2: short names of plugins become URIs."""
    for key in ("disabled_plugins", "required_plugins"):
        if key in table:
            table[key] = [uri_of(name) for name in table[key]]
    if "plugins" in table:
        old = table["plugins"]
        table["plugins"] = new = Table(old.mark)
        for name in old:
            new.put(uri_of(name), old[name], old.place(name))


_MOVES = {
    "grpc": {
        "address": [(GRPC_SERVER, "address")],
        "uid": [(GRPC_SERVER, "uid")],
        "gid": [(GRPC_SERVER, "gid")],
        "max_recv_message_size": [(GRPC_SERVER, "max_recv_message_size"), (TCP_SERVER, "max_recv_message_size")],
        "max_send_message_size": [(GRPC_SERVER, "max_send_message_size"), (TCP_SERVER, "max_send_message_size")],
        "tcp_address": [(TCP_SERVER, "address")],
        "tcp_tls_ca": [(TCP_SERVER, "tls_ca")],
        "tcp_tls_cert": [(TCP_SERVER, "tls_cert")],
        "tcp_tls_key": [(TCP_SERVER, "tls_key")],
        "tcp_tls_common_name": [(TCP_SERVER, "tls_common_name")],
    },
    "ttrpc": {key: [(TTRPC_SERVER, key)] for key in ("address", "uid", "gid")},
    "debug": {key: [(DEBUG_SERVER, key)] for key in ("address", "uid", "gid")},
    "metrics": {"address": [(METRICS_SERVER, "address")], "grpc_histogram": [(PROMETHEUS, "grpc_histogram")]},
}


def _move_sections(table: Table) -> None:
    """Step 3 to 4: sections of servers become blocks of their plugins; what a block has already stays."""
    grpc = table.get("grpc")
    for name, moves in _MOVES.items():
        section = table.get(name)
        if section is None:
            continue
        for key in [key for key in section if key in moves]:
            mark, value = section.place(key), section.pop(key)
            # zero is how containerd writes "not set", in the files that it generates too
            for uri, new in moves[key] if value else ():
                _put_default(table, uri, new, value, mark)
        if not section:
            del table[name]
    if grpc is not None:
        _derive_ttrpc(table)


def _derive_ttrpc(table: Table) -> None:
    """Before version 4 the ttrpc socket, unless configured, is next to the grpc socket and has the same owner."""
    server = blocks(table).get(GRPC_SERVER, {})
    if "address" not in server or "address" in blocks(table).get(TTRPC_SERVER, {}):
        return
    _put_default(table, TTRPC_SERVER, "address", server["address"] + ".ttrpc", server.place("address"))
    for key in {"uid", "gid"} & server.keys():
        _put_default(table, TTRPC_SERVER, key, server[key], server.place(key))


def _put_default(table: Table, uri: str, key: str, value: object, mark: Mark) -> None:
    plugins = blocks(table)
    if uri not in plugins:
        plugins.put(uri, Table(Mark(mark.file, mark.line)), mark)
    if key not in plugins[uri]:
        plugins[uri].put(key, value, mark)


def _leaves(table: Table) -> Iterator[tuple[str, object, Mark]]:
    for key, value in table.items():
        if isinstance(value, Table):
            yield from _leaves(value)
        else:
            yield key, value, table.place(key)


def _settle(table: Mapping[str, object], mark: Mark, origins: list[tuple[str, object, Mark]]) -> Table:
    """Return ``table`` with a mark for every value, those that a plugin moved found again by what they are."""
    settled = Table(table.mark if isinstance(table, Table) else Mark(mark.file, mark.line))
    marks = table.marks if isinstance(table, Table) else {}
    for key, value in table.items():
        if isinstance(value, dict):
            inner = _settle(value, marks.get(key, settled.mark), origins)
            settled.put(key, inner, inner.mark)
        else:
            settled.put(
                key, value, marks.get(key) or _origin(key, value, origins) or Mark(mark.file, settled.mark.line)
            )
    return settled


def _origin(key: str, value: object, origins: list[tuple[str, object, Mark]]) -> Mark | None:
    same = [(old, mark) for old, was, mark in origins if type(was) is type(value) and was == value]
    named = [mark for old, mark in same if old == key]
    telling = [mark for _, mark in same] if value not in (True, False, 0, "", []) else []
    return next(iter(named + telling), None)
