"""Older configurations: each key arrives where the newest version has it, with the line that it was written on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from windlass.config.migrate import VERSION, blocks, migrate
from windlass.config.toml import Table, parse
from windlass.errors import StartError
from windlass.plugin import InitContext, Plugin, PluginType

GRPC, TTRPC, TCP = "io.containerd.server.v1.grpc", "io.containerd.server.v1.ttrpc", "io.containerd.server.v1.grpc-tcp"
KIND: PluginType[object] = PluginType("type.a.v1")


def nothing(context: InitContext) -> object:
    return None


def migrated(text: str, *plugins: Plugin[object]) -> Table:
    table = parse(text, "c.toml")
    migrate(table, plugins)
    return table


def plain(table: Mapping[str, object]) -> dict[str, object]:
    """Return a table without what has no settings in it."""
    return {key: plain(value) if isinstance(value, dict) else value for key, value in table.items() if value != {}}


@pytest.mark.parametrize("version", ["", "version = 1", "version = 2", "version = 3", "version = 4"])
def test_every_version_becomes_the_newest(version: str) -> None:
    """A file without a version is of the first; an empty one stays without settings."""
    assert plain(migrated(version)) == {"version": VERSION}


@pytest.mark.parametrize(
    ("section", "uri", "key"),
    [
        ("[grpc]\naddress = '/x'", GRPC, "address"),
        ("[grpc]\ngid = 5", GRPC, "gid"),
        ("[grpc]\nmax_recv_message_size = 5", GRPC, "max_recv_message_size"),
        ("[grpc]\nmax_recv_message_size = 5", TCP, "max_recv_message_size"),
        ("[grpc]\ntcp_address = '/x'", TCP, "address"),
        ("[ttrpc]\naddress = '/x'", TTRPC, "address"),
        ("[ttrpc]\nuid = 5", TTRPC, "uid"),
    ],
)
def test_a_section_becomes_a_block(section: str, uri: str, key: str) -> None:
    """In the place of its plugin, and with its own line, so that a message points to what the operator wrote."""
    table = migrated(f"version = 3\n{section}\n")

    assert table["plugins"][uri][key] in ("/x", 5)
    assert str(table["plugins"][uri].place(key)) == "c.toml:3"
    assert "grpc" not in table and "ttrpc" not in table


def test_a_zero_in_a_section_is_not_set() -> None:
    """containerd's own generator writes zeros for what nobody has set."""
    assert plain(migrated("version = 3\n[grpc]\nuid = 0\ntcp_address = ''\n[debug]\naddress = ''\n")) == {"version": 4}


def test_what_a_block_says_already_wins_over_a_section() -> None:
    """Whoever has begun to write the new form means it."""
    table = migrated(f"version = 3\n[grpc]\naddress = '/old'\n[plugins.'{GRPC}']\naddress = '/new'\n")
    assert table["plugins"][GRPC]["address"] == "/new"


def test_what_no_section_has_stays_for_the_check_to_name() -> None:
    """A slip in an old section is not lost on the way."""
    assert plain(migrated("version = 3\n[grpc]\nadress = '/x'\n"))["grpc"] == {"adress": "/x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[grpc]\naddress = '/a'\ngid = 5", {"address": "/a.ttrpc", "gid": 5}),
        ("[grpc]\naddress = '/a'\n[ttrpc]\naddress = '/b'", {"address": "/b"}),
        ("[grpc]\ngid = 5", {}),
    ],
)
def test_the_ttrpc_socket_is_beside_the_other(text: str, expected: dict[str, object]) -> None:
    """As it was before version 4, unless it has an address of its own."""
    assert migrated(f"version = 3\n{text}\n")["plugins"].get(TTRPC, {}) == expected


@pytest.mark.parametrize("key", ["disabled_plugins", "required_plugins"])
def test_short_names_become_uris(key: str) -> None:
    """In lists and in blocks, for files of before version 2 only."""
    old = migrated(f"{key} = ['cri', 'x.y']\n[plugins.cri]\na = 1\n")
    assert old[key] == ["io.containerd.grpc.v1.cri", "x.y"]
    assert old["plugins"]["io.containerd.grpc.v1.cri"] == {"a": 1}
    assert migrated(f"version = 2\n{key} = ['cri']\n")[key] == ["cri"]


def test_plugins_migrate_their_blocks_version_by_version() -> None:
    """In the order that they are given, each seeing what those before it did; not at all from the newest version."""
    asked: list[tuple[str, int]] = []

    def rename(version: int, plugins: dict[str, dict[str, object]]) -> None:
        asked.append(("first", version))
        if version == 2 and "old" in plugins:
            plugins["type.a.v1.1"] = {"key": plugins.pop("old")["key"]}

    def look(version: int, plugins: dict[str, dict[str, object]]) -> None:
        asked.append(("second", version))
        assert ("old" in plugins) is (version < 2)

    first = Plugin(KIND, id="1", init=nothing, migrate=rename)
    second = Plugin(KIND, id="2", init=nothing, migrate=look)
    table = migrated("version = 2\n[plugins.old]\nkey = 'value'\n", first, second)

    assert asked == [("first", 2), ("second", 2), ("first", 3), ("second", 3)]
    assert table["plugins"] == {"type.a.v1.1": {"key": "value"}}
    assert str(table["plugins"]["type.a.v1.1"].place("key")) == "c.toml:3", "found again by what it is"
    migrated("version = 4\n", first, second)
    assert len(asked) == 4


def test_a_defect_of_a_migration_names_plugin_file_and_remedy() -> None:
    """One line, on which the operator can act without the plugin's author."""

    def broken(version: int, plugins: dict[str, dict[str, object]]) -> None:
        raise KeyError("x")

    with pytest.raises(StartError, match=r"^c\.toml: plugin type\.a\.v1\.1 .* version 3: KeyError: 'x'; ") as caught:
        migrated("version = 3\n", Plugin(KIND, id="1", init=nothing, migrate=broken))
    assert isinstance(caught.value.__cause__, KeyError)


def test_there_is_always_a_table_to_put_blocks_in() -> None:
    """A migration need not ask."""
    table = parse("", "c.toml")
    blocks(table)["x"] = {}
    assert blocks(table) is table["plugins"] and "x" in table["plugins"]
