"""Configurations of networks: what is one, and what is said of a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument
from windlass_cni.config import load, load_directory, parse
from windlass_cni.result import parse as parse_result


def test_a_conf_is_a_list_of_one_plugin() -> None:
    network = parse('{"cniVersion": "0.3.1", "name": "net", "type": "bridge", "bridge": "b0"}')
    assert [plugin.type for plugin in network.plugins] == ["bridge"]
    assert network.plugins[0].conf["bridge"] == "b0"


@pytest.mark.parametrize(
    ("document", "version"),
    [
        ({}, "0.1.0"),
        ({"cniVersion": "0.4.0"}, "0.4.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"]}, "1.1.0"),
        ({"cniVersion": "1.1.0", "cniVersions": ["1.1.0", "9.0.0"]}, "1.1.0"),
    ],
)
def test_the_highest_version_that_is_known_is_taken(document: dict[str, object], version: str) -> None:
    assert parse(json.dumps({"name": "n", "plugins": [{"type": "x"}], **document})).version == version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"plugins": []}', '"name" is missing'),
        ('{"name": "../x", "plugins": []}', "\"name\" is '../x'; it needs letters"),
        ('{"name": "n", "plugins": []}', '"plugins" is empty'),
        ('{"name": "n", "plugins": {}}', '"plugins" is not a list'),
        ('{"name": "n", "plugins": [3]}', 'an entry of "plugins" is not an object'),
        ('{"name": "n", "plugins": [{}]}', '"type" is missing'),
        ('{"name": "n", "plugins": [{"type": "../sh"}]}', "\"type\" is '../sh'; it is the name of a program"),
        ('{"name": "n", "type": "x", "cniVersion": "2.0.0"}', "CNI version 2.0.0 is not supported"),
        ('{"name": "n", "type": "x", "cniVersion": "one"}', '"cniVersion" is not a version'),
        ('{"name": "n", "type": "x", "capabilities": []}', None),
        ('{"name": "n", "type": "x", "capabilities": [1]}', '"capabilities" of x is not an object'),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, words: str | None) -> None:
    path = tmp_path / "10-net.conflist"
    path.write_text(text)
    if words is None:
        load(path)
        return
    with pytest.raises(InvalidArgument, match=r"network configuration .*10-net\.conflist: ") as caught:
        load(path)
    assert words in str(caught.value)


def test_files_are_taken_by_name_and_others_are_left(tmp_path: Path) -> None:
    for name in ("20-b.conf", "10-a.json", "30-c.conflist", "05-x.conf.bak"):
        (tmp_path / name).write_text(json.dumps({"name": name[3], "type": "x"}))
    assert [each.name for each in load_directory(tmp_path)] == ["a", "b", "c"]
    assert [each.name for each in load_directory(tmp_path, most=1)] == ["a"]


def test_plugins_beside_the_file_are_read_when_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "1.conf").write_text('{"type": "extra"}')
    for flag, kinds in ((False, ["x", "extra"]), (True, ["x"])):
        path = tmp_path / "net.conflist"
        path.write_text(json.dumps({"name": "net", "plugins": [{"type": "x"}], "loadOnlyInlinedPlugins": flag}))
        assert [plugin.type for plugin in load(path).plugins] == kinds


def test_results_of_old_versions_have_addresses_too() -> None:
    result = parse_result("n", "eth0", {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.4/16", "gateway": "10.1.0.1"}})
    assert [each.ip for each in result.of_container()] == ["10.1.0.4"]


@pytest.mark.parametrize("document", [{"ips": 3}, {"ips": [3, {}]}, {"interfaces": "x"}, {"ips": [{"address": 7}]}, {}])
def test_results_that_are_not_as_they_should_be_have_no_addresses(document: dict[str, object]) -> None:
    assert parse_result("n", "eth0", document).addresses == ()  # type: ignore[arg-type]  # what a plugin might print
