"""`windlass doctor`: each thing that is looked at, as it should be and as it should not."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from windlass_client import cli
from windlass_client.doctor import daemon, findings, linux, networking, registries, tools
from windlass_client.doctor.findings import ERROR, NOTE, OK, WARNING, Area, Finding
from windlass_client.doctor.linux import Machine
from windlass_client.doctor.tools import Tool


def machine(folder: Path, files: dict[str, str], release: str = "6.1.0-1-amd64") -> Machine:
    """Return a machine with these files below proc/ and sys/."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Machine(folder / "proc", folder / "sys", release)


GOOD = {
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids",
    "sys/kernel/security/lsm": "capability,apparmor",
    "proc/filesystems": "nodev\toverlay\n\text4\n\terofs\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow",
    "proc/sys/user/max_user_namespaces": "15000",
    "proc/sys/fs/inotify/max_user_instances": "1024",
    **{f"proc/self/ns/{name}": "" for name in linux.NAMESPACES},
}


def states(found: Iterable[Finding]) -> dict[str, str]:
    return {each.name: each.state for each in found}


def test_a_good_machine_has_no_errors(tmp_path: Path) -> None:
    """What a distribution's kernel offers is enough."""
    found = states(linux.findings(machine(tmp_path, GOOD)))
    assert ERROR not in found.values()
    assert [found[name] for name in ("version", "control groups", "namespaces", "overlay", "seccomp")] == [OK] * 5


@pytest.mark.parametrize(
    ("file", "text", "name", "state"),
    [
        ("proc/filesystems", "ext4", "overlay", WARNING),
        ("proc/filesystems", "overlay", "erofs", NOTE),
        ("sys/fs/cgroup/cgroup.controllers", "cpu io pids", "controller memory", WARNING),
        ("sys/fs/cgroup/cgroup.controllers", "", "control groups", NOTE),
        ("sys/kernel/security/lsm", "capability", "AppArmor, SELinux", NOTE),
        ("proc/sys/kernel/seccomp/actions_avail", "", "seccomp", WARNING),
        ("proc/sys/user/max_user_namespaces", "0", "user namespaces", NOTE),
        ("proc/sys/fs/inotify/max_user_instances", "32", "inotify", WARNING),
    ],
)
def test_what_linux_lacks(tmp_path: Path, file: str, text: str, name: str, state: str) -> None:
    """Each has a finding, with a remedy where there is one."""
    assert states(linux.findings(machine(tmp_path, GOOD | {file: text})))[name] == state


def test_an_old_linux_is_an_error(tmp_path: Path) -> None:
    """Layers could not be unpacked safely."""
    for release, state in (("4.19.0", ERROR), ("5.10.0-8", NOTE), ("6.12.1", OK)):
        assert states(linux.findings(machine(tmp_path, GOOD, release)))["version"] == state


def test_a_namespace_that_is_needed_is_an_error(tmp_path: Path) -> None:
    """Without it no container is one."""
    files = {name: text for name, text in GOOD.items() if name != "proc/self/ns/pid"}
    assert states(linux.findings(machine(tmp_path, files)))["namespace pid"] == ERROR


def test_a_clock_of_the_past_is_an_error() -> None:
    """No certificate is valid yet."""
    assert linux._clock(Area("linux"), 0.0, True).state == ERROR
    assert linux._clock(Area("linux"), 2e9, False).state == NOTE
    assert linux._clock(Area("linux"), 2e9, True).state == OK


# Programs


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_programs_and_their_versions(tmp_path: Path) -> None:
    """The first of several names is enough; a required program that is missing is an error."""
    script(tmp_path, "crun", "echo crun version 1.14")
    script(tmp_path, "old", "echo 'usage: old' >&2; exit 1")
    table = (
        Tool(("runc", "crun"), "no container can run", "runc", required=True),
        Tool(("old",), "nothing", "old"),
        Tool(("criu",), "no checkpoints", "criu"),
        Tool(("other",), "nothing", "other", required=True),
    )
    found = list(tools.findings(table, str(tmp_path)))
    assert [each.state for each in found] == [OK, WARNING, NOTE, ERROR]
    assert found[0].name == "crun" and found[0].detail.startswith("1.14 ")
    assert "exit code 1" in found[1].detail
    assert found[2].remedy == "apt-get install criu"


def test_a_program_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a few seconds."""
    monkeypatch.setattr(tools, "PATIENCE", 0.2)
    script(tmp_path, "slow", "exec sleep 60")
    (found,) = tools.findings((Tool(("slow",), "nothing", "slow"),), str(tmp_path))
    assert (found.state, "did not print" in found.detail) == (WARNING, True)


# Networks


def test_networks(tmp_path: Path) -> None:
    """A configuration that cannot be read, or that names a plugin that is not there, has its remedy."""
    plugins, conf = tmp_path / "bin", tmp_path / "net.d"
    plugins.mkdir()
    conf.mkdir()
    for name in networking.WANTED:
        (plugins / name).touch()
    (conf / "10-good.conflist").write_text(json.dumps({"name": "a", "plugins": [{"type": "bridge"}]}))
    (conf / "20-old.conf").write_text(json.dumps({"name": "b", "type": "calico"}))
    (conf / "30-broken.conflist").write_text("{")
    (conf / "40-empty.conflist").write_text("[]")
    (conf / "notes.txt").write_text("ignored")
    found = {each.name: each for each in networking.findings(machine(tmp_path, {}), conf, (plugins,))}
    assert found["CNI plugins"].state == OK
    assert found["10-good.conflist"].state == OK
    assert "calico" in found["20-old.conf"].detail and found["20-old.conf"].state == WARNING
    assert found["30-broken.conflist"].state == found["40-empty.conflist"].state == WARNING
    assert "notes.txt" not in found


def test_a_machine_without_cni_plugins(tmp_path: Path) -> None:
    """The package is named."""
    found = {each.name: each for each in networking.findings(machine(tmp_path, {}), tmp_path / "x", (tmp_path / "y",))}
    assert found["CNI plugins"].state == WARNING and "containernetworking-plugins" in found["CNI plugins"].remedy
    assert found["networks"].state == NOTE


# The daemon


def test_a_configuration_with_errors(tmp_path: Path) -> None:
    """Errors and warnings have file and line."""
    file = tmp_path / "config.toml"
    file.write_text('version = 3\nrot = "/x"\n')
    (found,) = daemon.configuration(Area("daemon"), file)
    assert found.state == ERROR and f"{file}:2" in found.detail
    file.write_text("version = 3\n")
    (found,) = daemon.configuration(Area("daemon"), file)
    assert found.state == OK


def test_sockets(tmp_path: Path) -> None:
    """One on which a daemon listens is told from one that was left, and from none."""
    path = tmp_path / "s"
    assert daemon.answers(Area("daemon"), path).state == NOTE
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert daemon.answers(Area("daemon"), path).state == NOTE
        listener.listen()
        assert daemon.answers(Area("daemon"), path).state == OK


def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root without space is a warning; one that is not there yet is measured where it will be."""
    (found,) = daemon.space(Area("daemon"), "root", tmp_path / "not/there")
    assert found.state in (OK, WARNING) and str(tmp_path) in found.detail
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((4096, 4096, 1000, 10, 10, 1000, 500, 500, real.f_flag, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    (found,) = daemon.space(Area("daemon"), "root", tmp_path)
    assert found.state == WARNING and "prune" in found.remedy


def test_the_filesystem_of_a_path(tmp_path: Path) -> None:
    """The mount whose place is the longest beginning."""
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /var/lib rw - overlay overlay rw\n3 1 0:6 / /var rw - xfs x rw\n"
    )
    found = {path: daemon.filesystem(Path(path), table) for path in ("/var/lib/windlass", "/var/library", "/etc")}
    assert found == {"/var/lib/windlass": "overlay", "/var/library": "xfs", "/etc": "ext4"}


# Registries


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.headers.get("Host", "").startswith("localhost") else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[int]:
    """Give the port of a registry."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_registries(registry: int, tmp_path: Path) -> None:
    """A mirror of hosts.toml is asked as a pull would ask it; one that is away or ill has a warning."""
    folder = tmp_path / f"registry.example.org_{registry}_"
    folder.mkdir()
    (folder / "hosts.toml").write_text(f'server = "http://127.0.0.1:{registry}"\n')
    names = registries.configured((tmp_path,))
    assert names == [f"registry.example.org:{registry}"]
    (found,) = registries.findings(names, (tmp_path,))
    assert found.state == OK and "hosts.toml" in found.detail
    (away,) = registries.findings(["127.0.0.1:9"], (tmp_path,))
    assert away.state == WARNING and "cannot be reached" in away.detail
    (folder / "hosts.toml").write_text(f'server = "http://localhost:{registry}"\n')
    (ill,) = registries.findings(names, (tmp_path,))
    assert ill.state == WARNING and "503" in ill.detail
    (folder / "hosts.toml").write_text("server = 5\n")
    (broken,) = registries.findings(names, (tmp_path,))
    assert broken.state == WARNING


# The command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It works without a daemon; JSON has the same findings; an error makes the exit code 1."""
    file = tmp_path / "config.toml"
    file.write_text("version = 3\n")
    common = ["--address", str(tmp_path / "s"), "doctor", "--offline", "--root", str(tmp_path), "--config", str(file)]
    cli.main([*common, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {each["area"] for each in found} == {"linux", "programs", "network", "daemon"}
    file.write_text("verzion = 3\n")
    assert cli.main([*common, "--quiet"]) == 1
    assert "did you mean" in capsys.readouterr().out


def test_people_read_a_list() -> None:
    """A heading for each area; remedies are below what they are for."""
    found = [Area("linux").ok("overlay"), Area("network").error("CNI", "none", "install some")]
    text = "\n".join(findings.lines(found))
    assert text == "linux\n  ok       overlay\n\nnetwork\n  error    CNI: none\n           remedy: install some"
    assert findings.summary(found) == "1 ok, 1 missing or broken"
