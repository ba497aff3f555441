"""`windlass-oci` and runc side by side: the same commands, the same exit codes, and output that clients read alike."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime, Spec, rootfs, spec
from polling import is_readable

from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed; apt-get install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed; apt-get install busybox-static"),
]
OURS = [sys.executable, "-m", "windlass_oci_runtime.cli.main"]


@dataclass
class Side:
    """A runtime's program, with a root and a bundle of its own."""

    program: list[str]
    directory: Path

    def run(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command; its output goes to files, as a container that runs on keeps its streams open."""
        command = [*self.program, "--root", str(self.directory / "state"), *arguments]
        out, err = self.directory / "stdout", self.directory / "stderr"
        with out.open("w") as stdout, err.open("w") as stderr:
            done = subprocess.run(
                command, input=input, stdout=stdout, stderr=stderr, text=True, timeout=60, cwd=self.directory
            )
        return subprocess.CompletedProcess(command, done.returncode, out.read_text(), err.read_text())

    def write(self, document: Spec) -> None:
        document["linux"].setdefault("cgroupsPath", f"/windlass-oci-{os.getpid()}/{self.directory.name}")
        (self.directory / "config.json").write_text(json.dumps(document))


@pytest.fixture(params=["runc", "windlass-oci"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    side = Side(["runc"] if request.param == "runc" else OURS, tmp_path / request.param)
    rootfs(side.directory / "rootfs")
    side.write(spec("sleep", "1000"))
    yield side
    for name in side.run("list", "-q").stdout.split():
        side.run("delete", "-f", name)
    assert cgroups.remove_within([f"{place}/windlass-oci-{os.getpid()}" for place, _, _ in cgroups.hierarchies()]) == []


@pytest.fixture
def box(side: Side) -> Side:
    """A container that runs."""
    assert side.run("run", "-d", "--pid-file", "pid", "box").returncode == 0
    return side


def test_a_container_lives_and_ends(side: Side) -> None:
    assert side.run("create", "--bundle", ".", "box").returncode == 0
    created = json.loads(side.run("state", "box").stdout)
    assert (created["status"], created["id"], created["bundle"]) == ("created", "box", str(side.directory))
    assert side.run("start", "box").returncode == 0
    assert side.run("start", "box").returncode == 1
    assert json.loads(side.run("state", "box").stdout)["status"] == "running"
    assert side.run("delete", "box").returncode == 1
    assert side.run("kill", "box", "KILL").returncode == 0
    deadline = time.monotonic() + 20
    while json.loads(side.run("state", "box").stdout)["status"] != "stopped":
        assert time.monotonic() < deadline
    assert side.run("delete", "box").returncode == 0
    assert side.run("state", "box").returncode == 1


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_run_has_the_programs_code_and_leaves_nothing(side: Side, script: str, code: int) -> None:
    document = spec("sh", "-c", f"echo out; echo err >&2; {script}")
    # The first process of a PID namespace cannot kill itself.
    document["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
    side.write(document)
    done = side.run("run", "box")
    assert (done.returncode, done.stdout, done.stderr) == (code, "out\n", "err\n")
    assert side.run("list", "-q").stdout == ""


def test_run_keeps_a_container_on_demand(side: Side) -> None:
    side.write(spec("true"))
    assert side.run("run", "--keep", "box").returncode == 0
    assert json.loads(side.run("list", "-f", "json").stdout)[0]["status"] == "stopped"


def test_exec(box: Side) -> None:
    done = box.run(
        "exec", "-u", "5:6", "-g", "7", "-e", "A=b", "--cwd", "/tmp", "box", "sh", "-c", "id -u; id -G; echo $A; pwd"
    )
    assert done.stdout.split("\n") == ["5", "6 7", "b", "/tmp", ""]
    assert box.run("exec", "box", "sh", "-c", "exit 3").returncode == 3
    missing = box.run("exec", "box", "none")
    assert missing.returncode == 255 and "executable file not found in $PATH" in missing.stderr
    document = box.directory / "process.json"
    document.write_text(json.dumps({**spec("echo", "by document")["process"]}))
    assert box.run("exec", "-p", str(document), "box").stdout == "by document\n"
    detached = box.run("exec", "-d", "--pid-file", "exec.pid", "box", "sleep", "1000")
    assert detached.returncode == 0
    assert int((box.directory / "exec.pid").read_text()) in json.loads(box.run("ps", "-f", "json", "box").stdout)


@pytest.mark.parametrize("capabilities", [None, {}])
def test_a_process_that_names_no_capabilities_has_none(side: Side, capabilities: object) -> None:
    """Neither the first process nor one of exec, which takes what the first one has."""
    document = spec("sleep", "1000")
    document["process"]["capabilities"] = capabilities
    side.write(document)
    assert side.run("run", "-d", "box").returncode == 0
    inside = side.run("exec", "box", "grep", "Cap", "/proc/self/status").stdout
    assert [line.split()[1] for line in inside.splitlines()] == ["0" * 16] * 5
    pid = json.loads(side.run("state", "box").stdout)["pid"]
    first = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Cap")]
    assert first == ["0" * 16] * 5


def test_processes_and_lists(box: Side) -> None:
    pid = int((box.directory / "pid").read_text())
    assert json.loads(box.run("ps", "--format", "json", "box").stdout) == [pid]
    assert [line.split()[1] for line in box.run("ps", "box").stdout.splitlines()[1:]] == [str(pid)]
    titles, row = box.run("list").stdout.splitlines()
    assert titles.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split()[:4] == ["box", str(pid), "running", str(box.directory)] and row.split()[5] == "root"


def test_pause_and_resume(box: Side) -> None:
    assert box.run("pause", "box").returncode == 0
    assert json.loads(box.run("state", "box").stdout)["status"] == "paused"
    assert box.run("exec", "box", "true").returncode == 255
    assert box.run("resume", "box").returncode == 0
    assert box.run("resume", "box").returncode == 1


def test_a_group_that_is_frozen_takes_no_container(side: Side) -> None:
    """In it, init would stand still, and its maker would wait for it forever."""
    name = json.loads((side.directory / "config.json").read_text())["linux"]["cgroupsPath"]
    groups = [Path(f"{place}{name}") for place, _, _ in cgroups.hierarchies()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    frozen = next(
        path for group in groups for path in (group / "freezer.state", group / "cgroup.freeze") if path.exists()
    )
    frozen.write_text("FROZEN" if frozen.name == "freezer.state" else "1")
    try:
        done = side.run("create", "box")
        assert done.returncode == 1
        assert "container's cgroup unexpectedly frozen" in done.stderr
        assert side.run("list", "-q").stdout == ""
    finally:
        frozen.write_text("THAWED" if frozen.name == "freezer.state" else "0")


def test_limits_are_changed(box: Side) -> None:
    assert box.run("update", "--memory", "67108864", "--pids-limit", "20", "box").returncode == 0
    assert box.run("update", "-r", "-", "box", input='{"cpu": {"shares": 512}}').returncode == 0
    stats = json.loads(box.run("events", "--stats", "box").stdout)
    assert (stats["type"], stats["id"]) == ("stats", "box")
    assert stats["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert (stats["data"]["pids"]["limit"], stats["data"]["pids"]["current"]) == (20, 1)


def test_errors_are_in_the_log(side: Side) -> None:
    done = side.run("--log", "log", "--log-format", "json", "state", "none")
    last = json.loads((side.directory / "log").read_text().splitlines()[-1])
    assert (done.returncode, last["level"]) == (1, "error")
    assert "does not exist" in last["msg"] and last["msg"] in done.stderr


def test_a_name_is_given_once(box: Side) -> None:
    done = box.run("create", "box")
    assert done.returncode == 1 and "container with given ID already exists" in done.stderr


def test_a_terminal_needs_somebody_who_takes_it(side: Side) -> None:
    document = spec("true")
    document["process"]["terminal"] = True
    side.write(document)
    done = side.run("create", "box")
    assert done.returncode == 1 and "cannot allocate tty" in done.stderr
    assert side.run("list", "-q").stdout == ""


def test_a_terminal_in_the_foreground(side: Side) -> None:
    document = spec("sh", "-c", "tty; stty 2>/dev/null; read line; echo got $line; exit 5")
    document["process"]["terminal"] = True
    side.write(document)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(side.directory)
        os.execvp(side.program[0], [*side.program, "--root", str(side.directory / "state"), "run", "box"])
    seen, typed = b"", False
    while True:
        assert is_readable(terminal, 20), seen
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        seen += data
        if b"/dev/pts/0" in seen and not typed:
            os.write(terminal, b"hello\r")
            typed = True
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert b"got hello" in seen
    os.close(terminal)


def test_lines_of_a_terminal_end_as_in_a_file(side: Side) -> None:
    """Where our standard output is not a terminal."""
    document = spec("echo", "line")
    document["process"]["terminal"] = True
    side.write(document)
    inside, outside = pty.openpty()
    command = [*side.program, "--root", str(side.directory / "state"), "run", "box"]
    # runc wants a terminal of its own.
    done = subprocess.run(command, stdin=outside, stdout=subprocess.PIPE, cwd=side.directory, timeout=60)
    os.close(inside)
    os.close(outside)
    assert (done.returncode, done.stdout) == (0, b"line\n")


def test_descriptors_are_preserved(side: Side) -> None:
    side.write(spec("cat", "/proc/self/fd/3"))
    reader, writer = os.pipe()
    os.write(writer, b"passed")
    os.close(writer)
    command = [*side.program, "--root", str(side.directory / "state"), "run", "--preserve-fds", "1", "box"]
    script = f'exec 3<&{reader}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command], pass_fds=[reader], cwd=side.directory, capture_output=True, timeout=60
    )
    os.close(reader)
    assert (done.returncode, done.stdout) == (0, b"passed"), done.stderr


def test_a_specification_to_begin_with_runs(side: Side) -> None:
    (side.directory / "config.json").unlink()
    assert side.run("spec").returncode == 0
    assert side.run("spec").returncode == 1
    document = json.loads((side.directory / "config.json").read_text())
    document["process"].update(terminal=False, args=["sh", "-c", "echo $HOME; grep Cap /proc/self/status"])
    side.write(document)
    done = side.run("run", "box")
    assert done.returncode == 0, done.stderr
    assert "CapEff:\t0000000020000420" in done.stdout


def test_signals_are_passed_on(side: Side) -> None:
    side.write(spec("sh", "-c", "trap 'exit 9' TERM; echo ready; while true; do sleep 0.05; done"))
    command = [*side.program, "--root", str(side.directory / "state"), "run", "box"]
    process = subprocess.Popen(command, cwd=side.directory, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(20) == 9
    process.stdout.close()


def test_features_are_a_document_of_the_specification(tmp_path: Path) -> None:
    done = subprocess.run([*OURS, "features"], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found["ociVersionMin"] == "1.0.0" and "rro" in found["mountOptions"]
    assert found["linux"]["cgroup"]["v2"] and "CAP_SYS_ADMIN" in found["linux"]["capabilities"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "no command 'fly'"),
        (["start"], '"start" requires the ID of a container'),
        (["kill", "box", "NONE"], "unknown signal 'NONE'"),
        (["checkpoint", "box"], "checkpoint is not supported by windlass-oci; run the container with runc"),
        (["create", "--no-pivot", "box"], "--no-pivot is not supported"),
        (["create", "--fast", "box"], "flag provided but not defined: --fast"),
        (["start", "../box"], "container ID '../box' is not valid"),
        (["update", "--memory", "much", "box"], "--memory 'much' is not a size such as 64m"),
        (["list", "-f", "xml"], "invalid format option 'xml'"),
        (["events", "--interval", "0s", "box"], "duration interval must be greater than 0"),
        (["run", "--preserve-fds", "7", "box"], "descriptor 3 is to be preserved and is not open"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    runtime = Runtime(tmp_path)
    runtime.bundle(spec("true"))
    command = [*OURS, "--root", runtime.root, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "b", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert re.fullmatch(f"windlass-oci: [^\n]*{re.escape(words)}[^\n]*\n", done.stderr), done.stderr
    runtime.close()
