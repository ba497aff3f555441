"""Networks of containers without a daemon: options, files, addresses, and what the hook does with plugins that fail."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound
from windlass_client import datadir
from windlass_client.cli import Where, main
from windlass_client.datadir import DataDirectory
from windlass_client.networks import (
    cleanup,
    connect,
    create,
    files,
    hosts,
    plan,
    ports,
    published,
    record,
    settings,
    subnets,
    views,
)
from windlass_client.networks.catalog import Catalog
from windlass_client.networks.create import Wish
from windlass_client.networks.members import Attached, Member, Registry, lines, started
from windlass_client.networks.options import NetworkOptions
from windlass_client.networks.record import Endpoint, NetworkRecord, PortMapping

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: names of network namespaces are mounts")

HOOK = Path(sys.executable).with_name("windlass-hook")


# `-p`


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("", None, 80, "tcp")]),
        ("8080:80", [("", range(8080, 8081), 80, "tcp")]),
        ("8080:80/UDP", [("", range(8080, 8081), 80, "udp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", range(8080, 8081), 80, "tcp")]),
        ("0.0.0.0:8080:80", [("", range(8080, 8081), 80, "tcp")]),
        ("[::1]:8080:80", [("::1", range(8080, 8081), 80, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", None, 80, "tcp")]),
        ("8000-8001:80-81", [("", range(8000, 8001), 80, "tcp"), ("", range(8001, 8002), 81, "tcp")]),
        ("8000-8009:80", [("", range(8000, 8010), 80, "tcp")]),
        ("80-81", [("", None, 80, "tcp"), ("", None, 81, "tcp")]),
    ],
)
def test_ports_are_read_as_docker_reads_them(text: str, expected: list[object]) -> None:
    assert ports.parse([text]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0:80",
        "80:0",
        "65536:1",
        "1-3:1-2",
        "3-1:80",
        "80:80/icmp",
        "1.2.3:80:80",
        "::1:80:80",
        "80:80:80",
        "9" * 99,
    ],
)
def test_other_ports_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidArgument, match="port ") as caught:
        ports.parse([text])
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


def test_more_ports_than_a_container_can_have_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="use --network host"):
        ports.parse(["1-60000:1-60000"])


def test_runs_of_ports_are_one_text_in_a_label() -> None:
    several = [PortMapping(8000 + each, 80 + each) for each in range(500)]
    mappings = [
        *several,
        PortMapping(53, 53, "udp"),
        PortMapping(9, 9, "tcp", "::1"),
        PortMapping(9, 9, "tcp", "10.0.0.1"),
    ]
    texts = ports.labelled(mappings)
    assert texts == ["8000-8499:80-579/tcp", "53:53/udp", "[::1]:9:9/tcp", "10.0.0.1:9:9/tcp"]
    assert ports.mappings(texts) == mappings
    labels = {"io.windlass.ports": json.dumps(texts)}
    assert published.of_labels(labels) == mappings
    assert published.summary(labels).startswith("0.0.0.0:8000-8499->80-579/tcp, 0.0.0.0:53->53/udp, [::1]:9->9/tcp")


@pytest.mark.parametrize("text", ["", "{", "[1]", '["x"]', "null", "7"])
def test_a_label_that_another_client_has_written_is_no_port(text: str) -> None:
    assert published.of_labels({"io.windlass.ports": text}) == []


def test_a_range_of_the_host_gives_its_first_free_port() -> None:
    with closing(socket.create_server(("", 0))) as server:
        port = server.getsockname()[1]
        (chosen,) = ports.choose([("", range(port, port + 3), 80, "tcp")], [PortMapping(port + 1, 80)])
        assert chosen.host_port == port + 2
        assert f"process {os.getpid()}" in str(ports.holder(PortMapping(port, 80)))
    with pytest.raises(FailedPrecondition, match="no port of 5-6 is free"):
        ports.choose([("", range(5, 7), 80, "tcp")], [PortMapping(5, 1), PortMapping(6, 1)])


def test_without_a_port_of_the_host_linux_chooses_one() -> None:
    first, second = ports.choose([("127.0.0.1", None, 80, "tcp"), ("", None, 53, "udp")], [])
    assert first.host_port > 1023 and second.protocol == "udp"


def test_an_address_that_the_host_does_not_have_is_said() -> None:
    with pytest.raises(FailedPrecondition, match=r"203\.0\.113\.9 is not one of this host"):
        ports.holder(PortMapping(80, 80, "tcp", "203.0.113.9"))


# The other options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (NetworkOptions(networks=("host", "back")), "cannot be combined"),
        (NetworkOptions(networks=("none",), ips=("10.0.0.1",)), "--ip cannot be used with --network none"),
        (NetworkOptions(networks=("container:x",), publish=("80",)), "-p cannot be used with --network container:x"),
        (NetworkOptions(networks=("container:x",), dns=("1.1.1.1",)), "--dns cannot be used"),
        (NetworkOptions(ips=("10.0.0.256",)), "not an IP address"),
        (NetworkOptions(dns=("x",)), "not an IP address"),
        (NetworkOptions(mac="02:00"), "not a MAC address"),
        (NetworkOptions(mac="01:00:5e:00:00:01"), "a group's address"),
        (NetworkOptions(aliases=("a b",)), "not the name of a host"),
        (NetworkOptions(network_aliases=[("back", "a\n10.0.0.9 bank")]), "not the name of a host"),
        (NetworkOptions(add_hosts=("x",)), "is not NAME:ADDRESS"),
        (NetworkOptions(add_hosts=("x:y",)), "is not an address"),
        (NetworkOptions(add_hosts=("x\n1.2.3.4 y:1.2.3.4",)), "is not NAME:ADDRESS"),
        (NetworkOptions(dns_search=("a\nnameserver 1.1.1.1",)), "not a domain"),
    ],
)
def test_wrong_options_are_refused(options: NetworkOptions, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        options.check()


async def test_a_host_name_adds_no_line_to_the_files_of_others() -> None:
    client: Any = SimpleNamespace(connection=Where("/run/d.sock", "default"))
    with pytest.raises(InvalidArgument, match=r"--hostname 'a\\n10.0.0.9 bank' is not the name of a host"):
        await plan.make(client, "box", "box", "a\n10.0.0.9 bank", NetworkOptions())


def test_hosts_to_add_may_have_colons() -> None:
    assert files.extra_host("db:10.0.0.5") == ("db", "10.0.0.5")
    assert files.extra_host("db:fd00::5") == ("db", "fd00::5")
    assert files.extra_host("db=[fd00::5]") == ("db", "fd00::5")
    assert files.extra_host("up:host-gateway") == ("up", "host-gateway")


# Files


@pytest.mark.parametrize(
    ("host", "stub", "expected", "public"),
    [
        (
            "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n",
            "",
            "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n",
            False,
        ),
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.7\n", "nameserver 192.0.2.7\n", False),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n", False),
        ("nameserver ::1\n# none\n", "", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", True),
        ("", "", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", True),
    ],
)
def test_resolv_conf_has_no_servers_that_are_the_containers_own(
    host: str, stub: str, expected: str, public: bool
) -> None:
    assert files.resolvers((), (), (), host, stub) == (expected, public)


def test_options_replace_what_the_host_has() -> None:
    host = "nameserver 192.0.2.1\nsearch a\noptions ndots:2\n"
    text, _ = files.resolvers(("9.9.9.9",), (".",), ("rotate",), host)
    assert text == "nameserver 9.9.9.9\noptions rotate\n"


def test_what_a_container_wrote_in_its_hosts_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(hosts.text(["10.0.0.2\ta"]))
    before = path.stat().st_ino
    with path.open("a") as file:
        file.write("192.0.2.1 own\n")
    hosts.rewrite(path, ["10.0.0.3\ta", "10.0.0.4\tb"])
    text = path.read_text()
    assert text.startswith(hosts.LOCAL) and text.endswith("10.0.0.3\ta\n10.0.0.4\tb\n# windlass: end\n192.0.2.1 own\n")
    assert path.stat().st_ino == before  # it is mounted
    path.write_text("mine\n")
    hosts.rewrite(path, ["10.0.0.3\ta"])
    assert path.read_text().startswith("mine\n# windlass: begin\n10.0.0.3\ta\n")
    hosts.rewrite(tmp_path / "none", [])
    (tmp_path / "link").symlink_to(path)
    hosts.rewrite(tmp_path / "link", [])
    assert "10.0.0.3" in path.read_text()


def test_members_know_each_other_by_name_in_networks_of_ones_own() -> None:
    def member(name: str, place: str, **networks: Attached) -> Member:
        return Member(f"{place}-{name}", name, name, name, f"/data/{place}/{name}", 1, "1", networks=networks)

    web = member("web", "a", back=Attached("eth0", ["10.0.0.2/24", "fd00::2/64"], ["10.0.0.1"]))
    web = replace(web, extra_hosts=[("up", "host-gateway"), ("x", "192.0.2.1")])
    db = member(
        "db", "a", back=Attached("eth0", ["10.0.0.3/24"], aliases=["store"]), bridge=Attached("eth1", ["10.88.0.2/16"])
    )
    plain = member("plain", "a", bridge=Attached("eth0", ["10.88.0.3/16"]))
    strange = member("strange", "b", back=Attached("eth0", ["10.0.0.4/24"]))
    everyone = [web, db, plain, strange]
    assert lines(web, everyone) == [
        "10.0.0.1\tup",
        "192.0.2.1\tx",
        "10.0.0.2\tweb web.back",
        "fd00::2\tweb web.back",
        "10.0.0.3\tdb store db.back",
    ]
    assert lines(plain, everyone) == ["10.88.0.3\tplain"]


# Networks


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("WINDLASS_CLIENT_DATA", str(tmp_path / "data"))
    return Catalog(tmp_path / "net.d", (tmp_path / "bin",))


def test_a_network_has_free_addresses(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subnets, "routes", lambda: iter([(subnets.parse("10.88.0.0/17"), "cni-podman0")]))
    assert str(subnets.of_network(create.default(catalog))[0]) == "10.89.0.0/16"
    first = create.create(catalog, Wish("one", ipv6=True))
    four, six = subnets.of_network(first)
    assert str(four) == "10.90.0.0/24" and six.version == 6 and str(six).startswith("fd")
    assert str(subnets.of_network(create.create(catalog, Wish("two")))[0]) == "10.90.1.0/24"
    assert create.default(catalog).path == catalog.conf_dir / "windlass" / "bridge.conflist"


def test_no_free_addresses_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FailedPrecondition, match="choose one with --subnet"):
        subnets.free([(subnets.parse("10.0.0.0/8"), "vpn")])


def test_conflists_are_for_the_plugins_of_debian(catalog: Catalog) -> None:
    wish = Wish("n", subnets=("10.9.0.0/24",), ip_ranges=("10.9.0.128/25",), internal=True, options={"mtu": "1400"})
    document = create.conflist(wish, {"mtu": "1400"}, [subnets.parse("10.9.0.0/24")])
    bridge, firewall = document["plugins"]
    assert bridge["mtu"] == 1400 and bridge["ipMasq"] is False and firewall["type"] == "firewall"
    ipam = bridge["ipam"]
    assert isinstance(ipam, dict) and ipam["routes"] == []
    assert ipam["ranges"] == [
        [{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1", "rangeStart": "10.9.0.128", "rangeEnd": "10.9.0.254"}]
    ]
    assert len(str(bridge["bridge"])) <= 15


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish("../x"), "network name"),
        (Wish("none"), "network name"),
        (Wish("n", driver="overlay"), "there are bridge, macvlan, ipvlan"),
        (Wish("n", subnets=("10.9.0.1/24",)), "is not a subnet"),
        (Wish("n", subnets=("fd5c::/64",)), "add --ipv6"),
        (Wish("n", gateways=("10.8.0.1",), subnets=("10.9.0.0/24",)), "--gateway 10.8.0.1 is not in"),
        (Wish("n", ip_ranges=("10.8.0.0/25",), subnets=("10.9.0.0/24",)), "--ip-range 10.8.0.0 is not in"),
        (Wish("n", options={"color": "red"}), "it knows bridge, mtu, vlan"),
        (Wish("n", options={"mtu": "x"}), "not a number"),
        (Wish("n", options={"bridge": "a/b"}), "not the name of an interface"),
        (Wish("n", driver="macvlan"), "--opt parent=eth0"),
        (Wish("n", driver="macvlan", options={"parent": "lo"}), "add --subnet"),
        (Wish("n", driver="ipvlan", options={"parent": "nowhere9"}), "does not exist"),
        (Wish("n", driver="ipvlan", options={"parent": "lo", "mode": "x"}, subnets=("10.9.0.0/24",)), "l2, l3, l3s"),
    ],
)
def test_other_networks_are_refused_and_nothing_is_written(catalog: Catalog, wish: Wish, words: str) -> None:
    with pytest.raises(Error, match=words):
        create.create(catalog, wish)
    assert list(catalog.files()) == []


def test_networks_that_overlap_or_have_one_bridge_are_refused(catalog: Catalog) -> None:
    create.create(catalog, Wish("one", subnets=("10.9.0.0/24",), options={"bridge": "br9"}))
    for wish, kind, words in (
        (Wish("two", subnets=("10.9.0.128/25",)), FailedPrecondition, "overlaps 10.9.0.0/24 of network one"),
        (Wish("two", options={"bridge": "br9"}), FailedPrecondition, "bridge br9 is network one's"),
        (Wish("one"), AlreadyExists, "already exists"),
    ):
        with pytest.raises(kind, match=words):
            create.create(catalog, wish)


def test_names_and_the_beginnings_of_ids_are_found(catalog: Catalog) -> None:
    create.create(catalog, Wish("one", labels={"team": "a"}))
    (catalog.conf_dir / "bad.conflist").write_text("{")
    found, problems = views.all_views(catalog)
    assert [each.name for each in found] == ["host", "none", "one"] and len(problems) == 1
    one = views.view(catalog, "one")
    assert views.view(catalog, one.id[:9]).name == "one" and one.document([])["Labels"] == {"team": "a"}
    with pytest.raises(NotFound):
        views.view(catalog, "two")
    assert [each.name for each in views.select(found, ["label=team=a", "driver=bridge"])] == ["one"]
    assert views.select(found, ["label=team=b"]) == []
    with pytest.raises(InvalidArgument, match="filter 'color=red'"):
        views.select(found, ["color=red"])


def test_a_prune_by_two_labels_means_networks_that_have_both(catalog: Catalog) -> None:
    create.create(catalog, Wish("first", labels={"a": "", "b": ""}))
    create.create(catalog, Wish("second", labels={"a": ""}))
    found, _ = views.all_views(catalog)
    assert [each.name for each in views.select(found, ["label=a", "label=b"])] == ["first"]
    assert [each.name for each in views.select(found, ["name=first", "name=second"])] == ["first", "second"]


def test_missing_plugins_are_named_with_the_remedy(catalog: Catalog) -> None:
    network = create.create(catalog, Wish("one")).network
    with pytest.raises(
        FailedPrecondition, match="CNI plugins bridge, firewall, host-local, portmap not found in"
    ) as got:
        catalog.check_installed([network])
    assert "apt install containernetworking-plugins" in str(got.value)


def test_the_command_line(
    catalog: Catalog, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ["network", "--cni-conf-dir", str(catalog.conf_dir)]
    assert main([*network, "create", "--subnet", "10.9.0.0/24", "-l", "a=b", "one"]) == 0
    assert main([*network, "create", "one"]) == 1
    assert main([*network, "ls", "--format", "{{.Name}} {{.Driver}}", "-f", "type=custom"]) == 0
    assert main([*network, "inspect", "one", "--format", "{{(index .IPAM.Config 0).Subnet}}"]) == 0
    assert main([*network, "inspect", "none-such", "one", "--format", "{{.Name}}"]) == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert main([*network, "prune"]) == 1
    assert main([*network, "rm", "host", "one"]) == 1
    assert main([*network, "rm", "-f", "one"]) == 0
    out, errors = capsys.readouterr()
    shown = [line for line in out.splitlines()[1:] if "WARNING" not in line and "[y/N]" not in line]
    assert shown == ["one bridge", "10.9.0.0/24", "one"] and "[y/N] one\n" in out
    assert "network prune has been cancelled" in errors
    assert "already exists" in errors and "cannot be removed" in errors


# The hook


PLUGIN = f"""#!{sys.executable}
import json, os, pathlib, sys, time
conf = json.load(sys.stdin)
folder = pathlib.Path({{folder!r}})
command = os.environ["CNI_COMMAND"]
with (folder / "calls").open("a") as file:
    note = [command, os.environ["CNI_CONTAINERID"], os.environ["CNI_NETNS"], conf.get("runtimeConfig")]
    file.write(json.dumps(note) + "\\n")
act = folder / command
if act.exists():
    print(json.dumps({{{{"code": 7, "msg": act.read_text()}}}}))
    sys.exit(1)
if command == "ADD":
    number = len((folder / "calls").read_text().splitlines()) + 1
    end = {{{{"name": os.environ["CNI_IFNAME"], "sandbox": os.environ["CNI_NETNS"], "mac": "02:00:00:00:00:01"}}}}
    address = {{{{"address": f"10.9.0.{{{{number}}}}/24", "gateway": "10.9.0.1", "interface": 0}}}}
    print(json.dumps({{{{"cniVersion": "1.0.0", "interfaces": [end], "ips": [address]}}}}))
"""


class World:
    """A network of one small plugin, and containers, which are processes that sleep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf, self.bin = folder / "net.d", folder / "bin"
        self.conf.mkdir()
        self.bin.mkdir()
        plugin = self.bin / "small"
        plugin.write_text(PLUGIN.format(folder=str(folder)))
        plugin.chmod(0o755)
        entry = {"type": "small", "capabilities": {"portMappings": True}}
        conflist = {"cniVersion": "1.0.0", "name": "net", "plugins": [entry]}
        (self.conf / "net.conflist").write_text(json.dumps(conflist))
        self.registry = Registry(folder / "attached")
        self.sleepers: dict[str, subprocess.Popen[bytes]] = {}

    def container(self, name: str, *mappings: PortMapping) -> Path:
        """Prepare a container and return its directory."""
        directory = self.folder / "containers" / name
        directory.mkdir(parents=True)
        (directory / "hosts").write_text(hosts.text([]))
        asked = NetworkRecord(
            id=name, name=name, key=f"k-{name}", hostname=name, endpoints=[Endpoint("net", "eth0")],
            conf_dir=str(self.conf), bin_dirs=[str(self.bin)], netns=str(self.folder / "netns" / name),
            registry=str(self.folder / "attached"), results=str(self.folder / "results"), ports=mappings,
        )  # fmt: skip
        record.write(directory, asked)
        return directory

    def hook(self, step: str, directory: Path) -> subprocess.CompletedProcess[str]:
        """Execute the hook as a runtime does: with a process that has a network namespace of its own."""
        name = directory.name
        if step == "attach":
            self.end(name)
            self.sleepers[name] = subprocess.Popen(["unshare", "--net", "sleep", "100"])
        state = json.dumps({"pid": self.sleepers[name].pid if step == "attach" else 0, "id": name})
        return subprocess.run([HOOK, step, directory], input=state, capture_output=True, text=True, timeout=60)

    def end(self, name: str) -> None:
        """End a container's process, and nothing more."""
        if sleeper := self.sleepers.pop(name, None):
            sleeper.kill()
            sleeper.wait()

    def calls(self) -> list[list[object]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def left(self) -> list[Path]:
        """Return what is kept of attachments."""
        places = ("attached", "results", "netns")
        return [each for place in places for each in (self.folder / place).glob("*") if each.name != "lock"]

    def close(self) -> None:
        for name in list(self.sleepers):
            self.end(name)
        for path in (self.folder / "netns").glob("*"):
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


@needs_root
def test_a_container_is_attached_and_detached(world: World) -> None:
    directory = world.container("web", PortMapping(8080, 80))
    done = world.hook("attach", directory)
    assert done.returncode == 0, done.stderr
    (call,) = world.calls()
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    assert call == ["ADD", "k-web", str(world.folder / "netns/web"), {"portMappings": [mapping]}]
    (member,) = world.registry.all()
    assert member.alive and member.networks["net"].ips == ["10.9.0.2"] and member.networks["net"].mac
    assert "10.9.0.2\tweb web.net\n" in (directory / "hosts").read_text()
    world.end("web")
    assert world.hook("detach", directory).returncode == 0
    # The namespace was still there for the plugin, although its last process has ended.
    assert world.calls()[1][:3] == ["DEL", "k-web", str(world.folder / "netns/web")]
    assert world.left() == []
    assert world.hook("detach", directory).returncode == 0  # once more does nothing


@needs_root
def test_a_failed_plugin_is_one_line_and_leaves_nothing(world: World) -> None:
    directory = world.container("web")
    (world.folder / "ADD").write_text("no luck")
    done = world.hook("attach", directory)
    assert done.returncode == 1
    assert done.stderr == 'windlass-hook: network "net": CNI plugin small failed at ADD: no luck (code 7)\n'
    assert [each[0] for each in world.calls()] == ["ADD", "DEL"] and world.left() == []


@needs_root
def test_what_an_earlier_run_has_left_is_taken_back_first(world: World) -> None:
    directory = world.container("web")
    world.hook("attach", directory)
    assert world.hook("attach", directory).returncode == 0  # as after a kill of the runtime
    assert [each[0] for each in world.calls()] == ["ADD", "DEL", "ADD"] and len(world.registry.all()) == 1
    world.end("web")
    subprocess.run(["umount", "-l", world.folder / "netns/web"], check=True)  # as after a boot
    assert world.hook("attach", directory).returncode == 0
    assert [each[0] for each in world.calls()[3:]] == ["DEL", "ADD"] and world.calls()[3][2] == ""


@needs_root
def test_a_detach_that_fails_is_done_by_the_next_attach(world: World) -> None:
    directory = world.container("web")
    world.hook("attach", directory)
    (world.folder / "DEL").write_text("busy")
    done = world.hook("detach", directory)
    assert done.returncode == 1 and "CNI plugin small failed at DEL: busy" in done.stderr and world.left()
    assert "failed at DEL: busy" in world.hook("attach", directory).stderr
    (world.folder / "DEL").unlink()
    assert world.hook("attach", directory).returncode == 0


@needs_root
def test_two_containers_never_have_one_port(world: World) -> None:
    web, late = (
        world.container("web", PortMapping(8080, 80)),
        world.container("late", PortMapping(8080, 80, "tcp", "::1")),
    )
    world.hook("attach", web)
    refused = world.hook("attach", late)
    assert refused.stderr == "windlass-hook: port [::1]:8080/tcp is in use by container web; stop it first\n"
    assert len(world.registry.all()) == 1
    world.end("web")  # it has ended, and no hook has run: its port is taken back
    assert world.hook("attach", late).returncode == 0
    assert [each.name for each in world.registry.all()] == ["late"]
    assert ["DEL", "k-web", str(world.folder / "netns/web"), world.calls()[1][3]] in world.calls()


@needs_root
def test_members_come_and_go_in_each_others_hosts(world: World) -> None:
    web, db = world.container("web"), world.container("db")
    for directory in (web, db):
        world.hook("attach", directory)
    assert "\tdb db.net\n" in (web / "hosts").read_text() and "\tweb web.net\n" in (db / "hosts").read_text()
    connect.rename(db, "store")
    assert "\tstore db store.net\n" in (web / "hosts").read_text()
    world.hook("detach", db)
    assert "db" not in (web / "hosts").read_text().replace(hosts.LOCAL, "")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda each: each.write_text("{"), "cannot be read: "),
        (lambda each: each.write_text('{"endpoints": [], "ports": []}'), "cannot be read: "),
        (lambda each: each.write_bytes(b"\xff"), "cannot be read: "),
    ],
)
def test_a_record_that_is_damaged_is_one_line(world: World, spoil: Callable[[Path], object], words: str) -> None:
    directory = world.container("web")
    spoil(directory / record.FILE)
    done = subprocess.run([HOOK, "detach", directory], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1


def test_a_hook_without_a_record_has_nothing_to_do(tmp_path: Path) -> None:
    assert subprocess.run([HOOK, "detach", tmp_path], stdin=subprocess.DEVNULL).returncode == 0
    wrong = subprocess.run([HOOK], capture_output=True, text=True)
    assert wrong.returncode == 1 and "usage" in wrong.stderr


def test_a_container_that_is_being_created_keeps_its_files_while_others_prune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record comes after its files; what a killed client left without a record is collected later."""
    monkeypatch.setenv("WINDLASS_CLIENT_DATA", str(tmp_path / "data"))
    data = DataDirectory(tmp_path / "data/0a1b2c3d/default")
    for name in ("new", "known", "left"):
        datadir.write(data.container(name) / "hosts", "")
        datadir.write(data.log(name), "")
    datadir.write(data.container("new") / record.FILE, "it is not to be read")
    for name in ("known", "left"):
        os.utime(data.container(name), (0, 0))
    cleanup.collect(data, ["known"])
    assert {each.name for each in data.containers.iterdir()} == {"new", "known"}
    assert (data.container("new") / "hosts").exists()


def test_the_hook_imports_neither_asyncio_nor_click_nor_grpc() -> None:
    code = (
        "import sys, windlass_client.networks.hook as h\n"
        "print([each for each in ('asyncio', 'click', 'grpc', 'concurrent.futures', 'logging') if each in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert settings.hook_program() == HOOK


def test_a_process_number_that_is_used_again_is_another_process() -> None:
    assert started(os.getpid()) != "" and started(1 << 30) == ""
    member = Member("k", "i", "n", "h", "/x", os.getpid(), "1")
    assert not member.alive and replace(member, started=started(os.getpid())).alive


def test_addresses_clash_as_linux_binds_them() -> None:
    every, one, other = PortMapping(80, 1), PortMapping(80, 2, "tcp", "10.0.0.1"), PortMapping(80, 3, "tcp", "10.0.0.2")
    assert record.clash([every], [one]) and record.clash([one], [every]) and not record.clash([one], [other])
    assert not record.clash([every], [PortMapping(80, 1, "udp")])
