"""Promises of host configuration (docs/containerd 6.4): the order, the defaults, and a place for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.config.toml import LIMIT
from windlass.errors import FailedPrecondition
from windlass_registry import hosts, hostsfile
from windlass_registry.hosts import CAPABILITIES, Host


def configure(root: Path, text: str, name: str = "a.test") -> Path:
    directory = root / name
    directory.mkdir()
    (directory / "hosts.toml").write_text(text)
    return directory


def found(root: Path, registry: str = "a.test") -> tuple[Host, ...]:
    result = hostsfile.find(registry, [root])
    result.raise_errors()
    return result.hosts


@pytest.mark.parametrize(
    ("registry", "base", "skip_verify", "falls_back"),
    [
        ("a.test", "https://a.test/v2", False, False),
        ("a.test:5000", "https://a.test:5000/v2", False, False),
        ("a.test:80", "http://a.test:80/v2", False, False),
        ("docker.io", "https://registry-1.docker.io/v2", False, False),
        ("localhost", "https://localhost/v2", True, False),
        ("localhost:443", "https://localhost:443/v2", True, False),
        ("localhost:5000", "http://localhost:5000/v2", True, True),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2", True, True),
        ("[::1]:5000", "http://[::1]:5000/v2", True, True),
        ("127.0.0.1:80", "http://127.0.0.1:80/v2", False, False),
        ("localhost.test", "https://localhost.test/v2", False, False),
    ],
)
def test_without_configuration_the_registry_itself_is_asked(
    tmp_path: Path, registry: str, base: str, skip_verify: bool, falls_back: bool
) -> None:
    (host,) = found(tmp_path, registry)

    assert (host.base, host.tls.skip_verify, host.falls_back) == (base, skip_verify, falls_back)


def test_mirrors_come_in_the_files_order_and_the_server_last(tmp_path: Path) -> None:
    directory = configure(
        tmp_path,
        """\
server = "https://origin.test"
ca = "origin.pem"

[host."https://mirror.test:5000"]
capabilities = ["pull", "resolve"]
ca = ["one.pem", "two.pem"]
client = [["cert.pem", "key.pem"], "both.pem"]
dial_timeout = "2s"
[host."https://mirror.test:5000".header]
x-one = "1"
x-two = ["2", "3"]

[host."http://proxy.test/cache/v2/hub"]
override_path = true

[host."plain.test"]
skip_verify = true
""",
    )
    for name in ("origin.pem", "one.pem", "two.pem", "cert.pem", "key.pem", "both.pem"):
        (directory / name).touch()

    mirror, proxy, plain, origin = found(tmp_path)

    assert mirror.base == "https://mirror.test:5000/v2"
    assert mirror.capabilities == {"pull", "resolve"}
    assert mirror.tls.cas == (directory / "one.pem", directory / "two.pem")
    assert mirror.tls.pairs == ((directory / "cert.pem", directory / "key.pem"), (directory / "both.pem", None))
    assert mirror.dial_timeout == 2.0
    assert mirror.headers == (("x-one", "1"), ("x-two", "2"), ("x-two", "3"))
    assert mirror.place == f"{directory}/hosts.toml:4"
    assert proxy.base == "http://proxy.test/cache/v2/hub"
    assert plain.base == "https://plain.test/v2" and plain.tls.skip_verify
    assert origin.base == "https://origin.test/v2" and origin.capabilities == CAPABILITIES
    assert origin.tls.cas == (directory / "origin.pem",)


def test_an_empty_list_of_capabilities_is_all_of_them(tmp_path: Path) -> None:
    """As in containerd: a host that may be asked for nothing is left out of the file."""
    configure(tmp_path, 'server = "https://a.test"\ncapabilities = []\n[host."https://m.test"]\ncapabilities = []')

    assert [host.capabilities for host in found(tmp_path)] == [CAPABILITIES, CAPABILITIES]


def test_without_a_server_the_registry_itself_comes_last(tmp_path: Path) -> None:
    configure(tmp_path, '[host."https://mirror.test"]\n')

    assert [host.base for host in found(tmp_path)] == ["https://mirror.test/v2", "https://a.test/v2"]


def test_a_registry_on_this_machine_is_asked_alike_with_mirrors_and_without(tmp_path: Path) -> None:
    configure(tmp_path, '[host."https://mirror.test"]\n', "127.0.0.1:5000")

    last = found(tmp_path, "127.0.0.1:5000")[-1]

    assert (last.base, last.tls.skip_verify, last.falls_back) == ("http://127.0.0.1:5000/v2", True, True)


def test_a_file_that_is_too_long_is_refused_not_passed_over(tmp_path: Path) -> None:
    configure(tmp_path, 'server = "https://b.test"\n' + "#" * LIMIT)

    with pytest.raises(FailedPrecondition, match="longer than"):
        found(tmp_path)


@pytest.mark.parametrize("name", ["a.test_5000_", "a.test:5000", "_default"])
def test_a_port_is_written_in_two_ways_and_default_is_for_all_others(tmp_path: Path, name: str) -> None:
    configure(tmp_path, 'server = "https://b.test"\n', name)

    assert found(tmp_path, "a.test:5000")[0].authority == "b.test"


def test_an_empty_file_leaves_dockers_certificates(tmp_path: Path) -> None:
    directory = configure(tmp_path, "")
    for name in ("ca.crt", "client.cert", "client.key"):
        (directory / name).touch()

    (host,) = found(tmp_path)

    assert host.tls.cas == (directory / "ca.crt",)
    assert host.tls.pairs == ((directory / "client.cert", directory / "client.key"),)
    assert host.place == str(directory)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('server = "ftp://a.test"', 1, "not the address"),
        ('server = "https://user@a.test"', 1, "not the address"),
        ('server = "https://a.test:x"', 1, "not the address"),
        ('[host."https://m.test"]\ncapabilities = ["pul"]', 2, 'did you mean "pull"'),
        ('[host."https://m.test"]\nca = "missing.pem"', 1, "missing.pem does not exist"),
        ('[host."https://m.test"]\nca = 3', 2, '"ca"'),
        ('[host."https://m.test"]\nskip_verify = "yes"', 2, '"skip_verify"'),
        ('[host."https://m.test"]\ndial_timeout = "5"', 1, "not a valid duration"),
        ('[host."https://m.test".header]\n"x y" = "1"', 1, "cannot be sent"),
        ('[host."https://m.test"]\nclient = [["a", "b", "c"]]', 1, "[certificate, key]"),
        ("server = ", 1, ""),
    ],
)
def test_a_mistake_has_file_and_line_and_nobody_is_asked(tmp_path: Path, text: str, line: int, words: str) -> None:
    directory = configure(tmp_path, text)

    with pytest.raises(FailedPrecondition) as caught:
        found(tmp_path)

    assert str(caught.value).startswith(f"{directory}/hosts.toml:{line}: ")
    assert words in str(caught.value)


def test_an_unknown_key_is_a_warning(tmp_path: Path) -> None:
    configure(tmp_path, '[host."https://m.test"]\nskip_verfy = true\n')

    result = hostsfile.find("a.test", [tmp_path])

    assert len(result.hosts) == 2
    assert ["unknown key" in str(problem) for problem in result.problems] == [True]


@given(st.text(max_size=300))
def test_no_file_makes_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("hosts")
    (root / "a.test").mkdir()
    (root / "a.test" / "hosts.toml").write_text(text)

    result = hostsfile.find("a.test", [root])

    assert result.hosts or result.problems


def test_this_machine_is_known_by_its_names() -> None:
    assert all(map(hosts.is_loopback, ("localhost", "localhost:1", "127.1.2.3", "[::1]:80")))
    assert not any(map(hosts.is_loopback, ("a.test", "128.0.0.1", "localhost.a.test", "[::2]:80")))
