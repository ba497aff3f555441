"""`ctr run`: exit codes, streams, terminals; the same from Windlass as from containerd."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import pytest
from compat.images import digest_of
from compat.machines import Machine, eventually
from polling import is_readable

IMAGE = "docker.io/library/busy:1"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 9", 137)])
def test_the_exit_code_is_the_containers(machine: Machine, box: str, script: str, code: int) -> None:
    """Also a signal's, and `--rm` leaves no task, no container and no snapshot."""
    # A pid 1 cannot kill itself, so the shell that does is its child.
    done = machine.try_ctr("run", "--rm", IMAGE, box, "/bin/sh", "-c", f"/bin/sh -c '{script}'; exit $?")

    assert (done.returncode, done.stdout) == (code, "")
    assert box not in machine.ctr("tasks", "ls")
    assert box not in machine.ctr("containers", "ls")
    assert box not in machine.ctr("snapshots", "ls")


def test_a_killed_container_ends_with_137(machine: Machine, box: str) -> None:
    """The signal comes from outside, by `tasks kill`."""
    with machine.background("run", "--rm", IMAGE, box, "/bin/sleep", "1000") as run:
        eventually(lambda: machine.status(box) == "RUNNING")
        machine.ctr("tasks", "kill", "-s", "SIGKILL", box)
        assert run.wait(20) == 137


def test_a_signal_to_ctr_reaches_the_container(machine: Machine, box: str) -> None:
    """SIGTERM is forwarded, and the container's answer to it is the exit code."""
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    with machine.background("run", "--rm", IMAGE, box, "/bin/sh", "-c", script) as run:
        assert run.stdout is not None
        assert run.stdout.read(3) == b"up\n"
        time.sleep(0.5)  # ctr forwards signals only some time after it has started the task
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 9


def test_stdout_and_stderr_come_apart(machine: Machine, box: str) -> None:
    """What is written to one does not appear in the other."""
    done = machine.try_ctr("run", "--rm", IMAGE, box, "/bin/sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_ten_megabytes_arrive_intact(machine: Machine, box: str) -> None:
    """Not a byte of a long output is lost at its end."""
    command = machine.command("run", "--rm", IMAGE, box, "/bin/sh", "-c", "yes 0123456789abcde | head -c 10485760")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert digest_of(done.stdout) == digest_of(b"0123456789abcde\n" * (10485760 // 16))


def test_stdin_passes_through_cat(machine: Machine, box: str) -> None:
    """What is typed comes back, and the end of input ends the container."""
    with machine.background("run", "--rm", IMAGE, box, "/bin/cat") as run:
        eventually(lambda: machine.status(box) == "RUNNING")
        out, _ = run.communicate(b"hello\n" * 100_000, timeout=30)
        assert (run.returncode, digest_of(out)) == (0, digest_of(b"hello\n" * 100_000))


def test_a_pipe_that_ends_early_always_ends_the_container(windlass: Machine) -> None:
    """`echo x | ctr run … cat`: ctr forgets CloseIO if it sees the end before NewTask returns, so we must not let it.

    Only Windlass gets this right: the shim opens the FIFO at Start, and until then ctr's copying cannot end.
    """
    for _ in range(30):
        box = windlass.new_id()
        try:
            assert windlass.ctr("run", "--rm", IMAGE, box, "/bin/cat", data=b"x\n", timeout=20) == "x\n"
        finally:
            windlass.remove(box)


def test_options_shape_the_container(machine: Machine, box: str) -> None:
    """Environment, working directory, mounts, a read-only root and labels are what was asked for."""
    script = "echo $COLOUR $(readlink /proc/self/cwd) $(cat /mnt/config.toml | head -n 1); touch /x || echo read-only"
    mount = f"type=bind,src={machine.directory},dst=/mnt,options=rbind:ro"
    flags = ["--env", "COLOUR=red", "--cwd", "/tmp", "--mount", mount, "--read-only", "--label", "a=b"]
    done = machine.try_ctr("run", "--rm", *flags, IMAGE, box, "/bin/sh", "-c", script)
    assert done.stdout == "red /tmp version = 2\nread-only\n"


def test_a_container_lives_in_the_cgroup_of_its_name(machine: Machine, running: str) -> None:
    """Which is /<namespace>/<id>."""
    pid = machine.rows("tasks", "ls")[running][1]
    with open(f"/proc/{pid}/cgroup") as file:
        assert f"/{machine.namespace}/{running}\n" in file.read()


def test_a_program_that_does_not_exist_is_said_and_leaves_nothing(machine: Machine, box: str) -> None:
    """The message is the OCI runtime's."""
    done = machine.try_ctr("run", "--rm", IMAGE, box, "/no/such/program")
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    assert "/no/such/program" in done.stderr
    assert box not in machine.ctr("tasks", "ls")
    assert box not in machine.ctr("containers", "ls")


def test_an_id_can_be_used_once(machine: Machine, running: str) -> None:
    """The second container of a name is refused, the first one stays."""
    done = machine.try_ctr("run", "-d", IMAGE, running, "/bin/true")
    assert done.returncode == 1
    assert "already exists" in done.stderr
    assert machine.status(running) == "RUNNING"


class Terminal:
    """A pseudo-terminal with a process on it."""

    def __init__(self, command: list[str], rows: int, columns: int) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""
        self.resize(rows, columns)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, timeout: float = 15.0) -> str:
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            assert is_readable(self.master, max(0.0, deadline - time.monotonic())), (
                f"{pattern!r} did not appear in {self.seen!r}"
            )
            try:
                self.seen += os.read(self.master, 4096).decode()
            except OSError:
                # EIO: the last process has closed the terminal, pty(7).
                raise AssertionError(f"{pattern!r} did not appear in {self.seen!r}") from None
        return found[found.re.groups and 1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_a_terminal_has_the_size_of_the_users_and_follows_it(machine: Machine, box: str) -> None:
    """`stty size` inside says what the window outside has, also after it is resized."""
    terminal = Terminal(machine.command("run", "--rm", "-t", IMAGE, box, "/bin/sh"), 31, 97)
    try:
        terminal.expect("# ")
        # ctr sets the size after it has started the task.
        eventually(lambda: size_inside(terminal) == "31 97")
        terminal.resize(42, 123)
        # A signal that comes before ctr listens for it is lost.
        eventually(lambda: size_inside(terminal, signal.SIGWINCH) == "42 123")
        terminal.type("exit 5\n")
        assert terminal.process.wait(20) == 5
    finally:
        terminal.close()


def size_inside(terminal: Terminal, wake: int = 0) -> str:
    """Return what the shell on the terminal says that its size is; ctr gets the signal ``wake`` before."""
    os.kill(terminal.process.pid, wake)
    terminal.seen = ""
    terminal.type('echo "<$(stty size)>"\n')
    return terminal.expect(r"<(\d+ \d+)>")


def test_control_c_reaches_the_program_on_the_terminal(machine: Machine, box: str) -> None:
    """The terminal is the container's own: it turns the character into a signal there."""
    terminal = Terminal(machine.command("run", "--rm", "-t", IMAGE, box, "/bin/sh"), 24, 80)
    try:
        terminal.expect("# ")
        terminal.type("sleep 1000\n")
        time.sleep(0.5)
        terminal.type("\x03")
        terminal.type("echo $?.\n")
        terminal.expect(r"130\.")
        terminal.type("exit\n")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
