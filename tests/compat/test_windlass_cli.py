"""`windlass` against Debian's containerd and against windlassd: the same commands, the same answers."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.windlass_machine import IMAGE, NEEDS, WINDLASS, Machine, read_until, running

pytestmark = NEEDS


@pytest.fixture(scope="module", params=["containerd", "windlassd"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running(request.param, tmp_path_factory.mktemp("m")) as machine:
        yield machine


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Every test ends with no container, no mount and no pipe."""
    yield
    left = machine.leftovers()
    machine.remove_containers()
    assert left == []


def test_streams_and_exit_codes(machine: Machine) -> None:
    """Output and errors come apart, and the exit code is the container's."""
    ran = machine.run("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.stdout, ran.stderr, ran.returncode) == (b"out\n", b"err\n", 7)
    assert machine.run("--rm", IMAGE, "true").returncode == 0


def test_ten_megabytes_through_a_container(machine: Machine) -> None:
    """Standard input is piped in, its end is seen, and every byte comes back."""
    data = os.urandom(10_000_000)
    ran = machine.run("--rm", "-i", IMAGE, "cat", input=data)
    assert ran.stdout == data, (len(ran.stdout), ran.stderr)


def test_options(machine: Machine, tmp_path: Path) -> None:
    """Environment, mounts, host name, user and working directory are as asked for."""
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("from outside\n")
    script = 'echo $A; cat /mnt/file; hostname; id -u; id -g; pwd; echo x 2>/dev/null > /mnt/file || echo "read-only"'
    ran = machine.run(
        "--rm", "-e", "A=b", "--mount", f"src={tmp_path},dst=/mnt,ro", "--hostname", "inside", "-u", "nobody",
        "-w", "/tmp", "--memory", "32M", "--cpus", "0.5", "--label", "x=y", IMAGE, "sh", "-c", script,
    )  # fmt: skip
    assert ran.stdout == b"b\nfrom outside\ninside\n65534\n65534\n/tmp\nread-only\n", ran.stderr


def test_the_hosts_network(machine: Machine) -> None:
    """With --net-host the interfaces are the host's, without there is only a loopback."""
    count = ("sh", "-c", "cat /proc/net/dev | wc -l")
    own = int(machine.run("--rm", IMAGE, *count).stdout)
    host = int(machine.run("--rm", "--net-host", IMAGE, *count).stdout)
    assert host == len(Path("/proc/net/dev").read_text().splitlines())
    assert own < host or host <= 3


def test_a_container_in_the_background(machine: Machine) -> None:
    """It is listed, takes further processes, is not removed as long as it runs, and goes with -f."""
    started = machine.run("-d", "--name", "bg", IMAGE, "sleep", "1000")
    assert started.stdout == b"bg\n", started.stderr
    [listed] = json.loads(machine.windlass("ps", "--json").stdout)
    assert (listed["container"], listed["image"], listed["status"]) == ("bg", IMAGE, "running")

    executed = machine.windlass("exec", "bg", "sh", "-c", "echo $$ >&2; hostname; exit 3")
    assert (executed.stdout, executed.returncode) == (b"bg\n", 3)
    assert machine.windlass("exec", "-i", "bg", "cat", input=b"piped").stdout == b"piped"
    [document] = json.loads(machine.windlass("inspect", "bg").stdout)
    assert document["State"]["Pid"] == document["Containerd"]["task"]["pid"] == listed["pid"]
    assert document["Containerd"]["spec"]["process"]["args"] == ["sleep", "1000"]

    refused = machine.windlass("rm", "bg")
    assert refused.returncode == 1
    assert b"container bg is running; remove it with --force, which kills it" in refused.stderr
    assert machine.windlass("rm", "-f", "bg").stdout == b"bg\n"


def test_how_a_container_ended_is_listed(machine: Machine) -> None:
    """Whether its task is still there, or was deleted by the command that ran it."""
    machine.run("--name", "failed", IMAGE, "sh", "-c", "exit 7")
    machine.run("-d", "--name", "runs", IMAGE, "sleep", "1000")
    machine.run("-d", "--name", "ended", IMAGE, "sh", "-c", "exit 5")
    deadline = time.monotonic() + 20
    while (found := states(machine))["ended"][0] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert found == {"failed": ("stopped", 7), "ended": ("stopped", 5), "runs": ("running", None)}
    table = machine.windlass("ps", "-a").stdout.decode().splitlines()
    assert "STATUS" in table[0]
    assert "Exited (7) " in next(line for line in table if line.startswith("failed"))
    machine.windlass("rm", "-f", "failed", "runs", "ended")


def states(machine: Machine) -> dict[str, tuple[str, int | None]]:
    listed = json.loads(machine.windlass("ps", "-a", "--json").stdout)
    return {each["container"]: (each["status"], each["exit_status"]) for each in listed}


def test_exit_codes_without_a_process(machine: Machine) -> None:
    """127 for a command that is not there, 126 for one that cannot be executed, as with docker; exec has the same."""
    fifos = str(machine.directory / "fifo")
    machine.run("-d", "--name", "host", IMAGE, "sleep", "1000")
    for command, code in (("no-such-program", 127), ("/no/such/program", 127), ("/etc/passwd", 126), ("/etc", 126)):
        assert machine.run("--rm", IMAGE, command).returncode == code, command
        assert machine.windlass("exec", "--fifo-dir", fifos, "host", command).returncode == code, command
    machine.windlass("rm", "-f", "host")


def test_an_exec_whose_child_keeps_its_output_open(machine: Machine) -> None:
    """It has ended all the same, with its own exit code, and nothing waits for the child (CVE-2026-53495)."""
    machine.run("-d", "--name", "host", IMAGE, "sleep", "1000")
    fifos = str(machine.directory / "fifo")
    ran = machine.windlass("exec", "--fifo-dir", fifos, "host", "sh", "-c", "sleep 1000 & echo out; exit 3")
    machine.windlass("rm", "-f", "host")
    assert (ran.stdout, ran.returncode) == (b"out\n", 3), ran.stderr


def test_exit_code_of_windlass_itself(machine: Machine, tmp_path: Path) -> None:
    """125 for all that is no fault of the command's, though a runtime may say `no such file` of it."""
    assert machine.run("--rm", "--mount", f"src={tmp_path}/none,dst=/x", IMAGE, "true").returncode == 125
    assert machine.run("--rm", "--no-such-option", IMAGE, "true").returncode == 125
    assert machine.run("--rm", "--cap-drop", "NO_SUCH", IMAGE, "true").returncode == 125
    assert machine.windlass("exec", "nosuch", "true").returncode == 125
    machine.run("--name", "ended", IMAGE, "true")
    again, inside = machine.run("--name", "ended", IMAGE, "true"), machine.windlass("exec", "ended", "true")
    machine.windlass("rm", "ended")
    assert b"container ended already exists; choose another name" in again.stderr
    assert b"container ended is not running" in inside.stderr


def test_the_third_interrupt_leaves(machine: Machine) -> None:
    """A first process that ignores signals, as each without a handler does, is killed by the third."""
    command = [*WINDLASS, "run", "--name", "deaf", IMAGE]
    script = "trap '' INT; echo ready; while true; do sleep 0.1; done"
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "sh", "-c", script], env=machine.environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 137
        assert b"killing container deaf" in process.stderr.read()
    assert states(machine) == {"deaf": ("stopped", 137)}
    machine.windlass("rm", "deaf")


def test_the_third_interrupt_leaves_a_daemon_that_hangs(machine: Machine) -> None:
    """Nothing is waited for then; the container is still there, and removed when the daemon answers again."""
    command = [*WINDLASS, "run", "--name", "stuck", IMAGE]
    script = "trap '' TERM; echo ready; while true; do sleep 0.1; done"
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "sh", "-c", script], env=machine.environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)  # the first words can be quicker than the daemon's answer that it has started
        machine.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)  # two signals at once are one
            assert process.wait(30) == 125
        finally:
            machine.process.send_signal(signal.SIGCONT)
        assert b"container stuck was killed" in process.stderr.read()
    assert "stuck" in states(machine)
    machine.windlass("rm", "-f", "stuck")


SYSTEM = [each for each in ("/usr", "/lib", "/lib64") if Path(each).exists()]
PYTHON = Path("/usr/bin/python3")


@pytest.mark.skipif(not PYTHON.exists(), reason="no /usr/bin/python3, which asks for sockets in the container")
def test_a_container_is_confined(machine: Machine) -> None:
    """No AF_ALG socket and no namespace of its own, whoever asks; unless the options say otherwise."""
    script = (
        "import ctypes, errno, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for family in (38, 40, 1):\n"
        "    made = libc.socket(family, socket.SOCK_SEQPACKET, 0)\n"
        "    print(family, 'made' if made >= 0 else errno.errorcode[ctypes.get_errno()])\n"
        "print(libc.unshare(0x10000000) and errno.errorcode[ctypes.get_errno()])\n"
        "status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines())\n"
        "print(status['Seccomp'], status['NoNewPrivs'], int(status['CapEff'], 16))\n"
        "print(open('/proc/self/oom_score_adj').read())\n"
    )
    mounts = [word for each in SYSTEM for word in ("--mount", f"src={each},dst={each},ro")]
    command = [*mounts, IMAGE, str(PYTHON), "-c", script]

    confined = machine.run("--rm", "--cap-drop", "ALL", "--cap-add", "KILL", *command)
    free = machine.run(
        "--rm", "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges=false", *command
    )

    assert confined.stdout.decode().split("\n")[:6] == ["38 EPERM", "40 EPERM", "1 made", "EPERM", "2 1 32", "0"], (
        confined
    )
    shown = free.stdout.decode().split("\n")
    assert shown[0] != "38 EPERM" and shown[3] == "0" and shown[4].startswith("0 0 "), free


def test_the_number_of_processes_is_bounded(machine: Machine) -> None:
    """The container gets an error where the next process would be one too many."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all"
    bounded = machine.run("--rm", "--pids-limit", "5", IMAGE, "sh", "-c", script)
    free = machine.run("--rm", IMAGE, "sh", "-c", script)

    assert bounded.returncode != 0 and b"fork" in bounded.stderr
    assert (free.returncode, free.stdout) == (0, b"all\n")


def test_a_signal_reaches_the_container(machine: Machine) -> None:
    """What the command line is sent, the container gets."""
    script = "trap 'echo got; exit 9' TERM; echo ready; while true; do sleep 0.1; done"
    command = [*WINDLASS, "run", "--rm", IMAGE, "sh", "-c", script]
    with subprocess.Popen(command, env=machine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"got\n"
    assert process.returncode == 9


def test_nobody_reads_the_output(machine: Machine) -> None:
    """As in any pipeline, the writer ends when the reader has gone."""
    command = [*WINDLASS, "run", "--rm", IMAGE]
    script = "while true; do echo 0123456789; done"
    with subprocess.Popen([*command, "sh", "-c", script], env=machine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 137


def test_a_terminal(machine: Machine) -> None:
    """The container's terminal has the size of ours, follows it, and turns ^C into a signal."""
    arguments = ["run", "--rm", "-t", "-i", IMAGE, "sh"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(WINDLASS[0], [*WINDLASS, *arguments], machine.environment)
    try:
        resize(terminal, 33, 101)
        read_until(terminal, b"# ")
        os.write(terminal, b"stty size; tty\n")
        assert b"/dev/pts/0" in read_until(terminal, b"/dev/pts/0")
        resize(terminal, 44, 122)
        time.sleep(0.5)
        os.write(terminal, b"stty size; sleep 100\n")
        read_until(terminal, b"44 122")
        time.sleep(0.5)  # until it sleeps
        os.write(terminal, b"\x03")
        read_until(terminal, b"# ")
        os.write(terminal, b"exit 4\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def test_what_is_typed_before_the_container_runs_reaches_it(machine: Machine) -> None:
    """As with any shell: nothing is discarded when the terminal changes its mode."""
    arguments = ["run", "--rm", "-t", "-i", IMAGE, "sh"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(WINDLASS[0], [*WINDLASS, *arguments], machine.environment)
    try:
        os.write(terminal, b"echo $((40+2))\n")
        read_until(terminal, b"42")
        os.write(terminal, b"exit 4\n")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


def resize(terminal: int, lines: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pull", "never", "nosuch", "true"], b"image nosuch does not exist"),
        (["--name", "a/b", IMAGE, "true"], b"container 'a/b' is not valid"),
        (["--user", "nobody-here", IMAGE, "true"], b"user 'nobody-here' is not in the image's /etc/passwd"),
        (["--snapshotter", "nosuch", IMAGE, "true"], b"nosuch"),
    ],
)
def test_a_container_that_cannot_be(machine: Machine, arguments: list[str], message: bytes) -> None:
    """One line says why, and nothing of it is left."""
    ran = machine.run("--rm", *arguments)
    assert ran.returncode == 125
    assert message in ran.stderr
    assert ran.stderr.startswith(b"windlass: ")
    assert ran.stderr.count(b"\n") == 1


def test_a_bad_archive_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    """A digest that does not fit is refused by the daemon, and its blobs are gone at once."""
    from client.conftest import ArchiveFiles

    files = ArchiveFiles(name="example.org/bad:1")
    layer = "blobs/" + files.manifest["layers"][0]["digest"].replace(":", "/")
    files.files[layer] = b"something else"
    before = blobs(machine)

    imported = machine.windlass("image", "import", files.save(tmp_path / "bad.tar"))

    assert imported.returncode == 1
    assert f"bad.tar: {layer} is refused".encode() in imported.stderr
    assert blobs(machine) == before
    assert b"bad" not in machine.windlass("image", "ls").stdout


def blobs(machine: Machine) -> set[str]:
    contents = machine.directory / "root" / "io.containerd.content.v1.content"
    return {path.name for path in contents.rglob("*") if path.is_file()}


def test_events_are_printed_as_they_happen(machine: Machine) -> None:
    """One line each, in the order of a container's life."""
    command = [*WINDLASS, "events", "--json", f"namespace=={machine.namespace},topic~=^/(tasks|ready)/"]
    with subprocess.Popen(command, env=machine.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with machine.publishing("/ready/now"):  # until somebody listens, which takes as long as it takes
            process.stdout.readline()
        machine.run("--rm", IMAGE, "true")
        lines = (json.loads(line)["topic"] for line in process.stdout)
        topics = list(itertools.islice((topic for topic in lines if topic != "/ready/now"), 4))
        process.send_signal(signal.SIGINT)
    assert topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    assert process.returncode == 130


def test_a_container_outlives_a_killed_daemon_and_its_command(machine: Machine) -> None:
    """The command line sits out a restart of the daemon and still has the exit code."""
    command = [*WINDLASS, "run", "--rm", IMAGE]
    script = "echo ready; read line; echo $line; exit 6"
    command = [*command[:-1], "-i", command[-1], "sh", "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=machine.environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.5)  # the first words can be quicker than the daemon's answer that it has started
        machine.process.kill()
        machine.process.wait()
        machine.start()
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert process.stdout.read() == b"go on\n"
        assert process.wait(30) == 6


def test_plugins(machine: Machine) -> None:
    """The graph has what every containerd has."""
    listed = json.loads(machine.windlass("plugins", "ls", "--json").stdout)
    assert {"io.containerd.content.v1", "io.containerd.snapshotter.v1"} <= {plugin["type"] for plugin in listed}
    assert b"io.containerd.metadata.v1  \xe2\x9c\x93 bolt" in machine.windlass("plugins", "graph").stdout
    assert machine.windlass("plugins", "why", "io.containerd.metadata.v1.bolt").returncode == 0
    assert machine.windlass("plugins", "why", "io.containerd.nosuch.v1").returncode == 1
