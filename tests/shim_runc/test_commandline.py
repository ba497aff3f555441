"""The command line of an OCI runtime, with shell scripts as the program: arguments, files, errors and deadlines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shim_runc.fake_runtime import Parts

from windlass import errors
from windlass_shim_runc import commandline, messages
from windlass_shim_runc.commandline import CommandLine, environment
from windlass_shim_runc.loop import Flag
from windlass_shim_runc.runc import Runc, runtime_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")

Make = Callable[..., CommandLine]

NOTE = 'echo "$@" >>"$0.calls"\n'
PID_FILE = 'while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo 4194303 >"$2"; shift; done\n'


@pytest.fixture
def make(parted: Parts, tmp_path: Path) -> Make:
    """A maker of runtimes whose program is a script."""

    def make(script: str, name: str = "runtime", **options: object) -> CommandLine:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        bundle = tmp_path / "bundle"
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text("{}")
        wanted = messages.Options(binary_name=str(program), root=str(tmp_path / "root"), **options)
        found = runtime_of(parted.shim, "box", str(bundle), wanted)
        assert isinstance(found, CommandLine)
        return found

    return make


def calls(runtime: CommandLine) -> list[str]:
    """Return what the program was called with, without what is the same each time."""
    root = f"--root {runtime.root} "
    lines = Path(f"{runtime.program}.calls").read_text().splitlines()
    return [line.removeprefix(root) for line in lines]


def test_create_says_where_everything_is(parted: Parts, make: Make, tmp_path: Path) -> None:
    """Root with namespace, log, bundle, pid file, and the flags of the options."""
    runtime = make(NOTE + PID_FILE, systemd_cgroup=True, no_pivot_root=True, no_new_keyring=True)

    async def create() -> None:
        assert await runtime.create({}, "/tmp/console") == 4194303

    parted.run(create())
    bundle = tmp_path / "bundle"
    assert runtime.root == f"{tmp_path}/root/ns"
    assert calls(runtime) == [
        " ".join(
            [
                f"--systemd-cgroup --log {bundle}/log.json --log-format json create --bundle {bundle}",
                f"--pid-file {bundle}/init.pid --no-pivot --no-new-keyring --console-socket /tmp/console box",
            ]
        )
    ]


def test_an_exec_leaves_its_pid_file_alone(parted: Parts, make: Make, tmp_path: Path) -> None:
    """Spec and log are gone, also when it fails."""
    runtime = make(NOTE + 'cat "$0.spec" >/dev/null 2>&1\n' + PID_FILE)

    async def run() -> None:
        assert await runtime.exec("one", b"{}", {}, "") == 4194303

    parted.run(run())
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == ["config.json", "exec-one.pid"]
    failing = make("exit 3\n")
    with pytest.raises(errors.Error, match=r"OCI runtime exec failed: .* exited with status 3"):
        parted.run(fail(failing))
    assert not list((tmp_path / "bundle").glob("exec-one.json"))


async def fail(runtime: CommandLine) -> None:
    """Run an exec."""
    await runtime.exec("one", b"{}", {}, "")


def test_what_the_program_logs_is_the_error(parted: Parts, make: Make) -> None:
    """Its last error, with a remedy where one is known."""
    log = 'while [ "$1" != --log ]; do shift; done\n'
    say = 'echo \'{"level":"error","msg":"container with given ID already exists"}\' >>"$2"\nexit 1\n'
    runtime = make(log + say)
    with pytest.raises(errors.Error) as info:
        parted.run(runtime.pause())
    assert str(info.value) == (
        "OCI runtime pause failed: container with given ID already exists; remove what an earlier run left with: "
        f"{runtime.program} --root {runtime.root} delete --force box"
    )


def test_old_errors_are_not_repeated(parted: Parts, make: Make, tmp_path: Path) -> None:
    """Only what this command has logged counts."""
    runtime = make("exit 1\n")
    (tmp_path / "bundle" / "log.json").write_text('{"level":"error","msg":"of yesterday"}\n')
    with pytest.raises(errors.Error, match="exited with status 1"):
        parted.run(runtime.resume())


def test_a_program_that_hangs_is_killed_with_its_children(
    parted: Parts, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the step and how long it was given."""
    runtime = make(f"sleep 1000 & echo $! >{tmp_path}/child; wait\n")

    async def run() -> None:
        await runtime.run("state", "box", timeout=0.5)

    with pytest.raises(
        errors.DeadlineExceeded, match=r"OCI runtime state of box did not end in 0\.\d s and was killed"
    ):
        parted.run(run())
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Tell whether a process is there and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("program", "words"), [
    ("no-such-runtime", r'OCI runtime "no-such-runtime": executable file not found in \$PATH'),
    ("/no/such/runtime", 'OCI runtime "/no/such/runtime": no such file or directory; install it or correct'),
    ("/etc/passwd", 'OCI runtime "/etc/passwd": permission denied'),
])  # fmt: skip
def test_a_program_that_is_not_there_is_said_in_gos_words(
    parted: Parts, tmp_path: Path, program: str, words: str
) -> None:
    """Clients look for them."""
    runtime = runtime_of(parted.shim, "box", str(tmp_path), messages.Options(binary_name=program))
    with pytest.raises(errors.FailedPrecondition, match=words):
        parted.run(runtime.pause())


@pytest.mark.parametrize("word", commandline.GONE)
def test_a_kill_of_what_has_ended_is_not_found(parted: Parts, make: Make, word: str) -> None:
    """In the words of each runtime."""
    log = 'while [ "$1" != --log ]; do shift; done\n'
    runtime = make(f'{log}echo \'{{"level":"error","msg":"{word}"}}\' >>"$2"\nexit 1\n')

    async def kill() -> None:
        await runtime.kill(9, True)

    with pytest.raises(errors.NotFound, match="process of container box has finished already"):
        parted.run(kill())


def test_a_kill_that_fails_otherwise_says_so(parted: Parts, make: Make) -> None:
    runtime = make(NOTE + "exit 2\n")

    async def kill() -> None:
        await runtime.kill(15, True)

    with pytest.raises(errors.Error, match="exited with status 2"):
        parted.run(kill())
    assert calls(runtime)[0].endswith("kill --all box 15")


def test_a_container_that_is_not_known_is_deleted(parted: Parts, make: Make) -> None:
    """There is nothing to remove."""
    log = 'while [ "$1" != --log ]; do shift; done\n'
    runtime = make(f'{log}echo \'{{"level":"error","msg":"container does not exist"}}\' >>"$2"\nexit 1\n')
    parted.run(runtime.delete())


def test_what_a_failed_create_has_made_is_removed(parted: Parts, make: Make, tmp_path: Path) -> None:
    """By the program if it knows the container, then by us."""
    runtime = make(NOTE)
    directory = tmp_path / "root" / "ns" / "box"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "exec.fifo")
    half_written = tmp_path / "bundle" / ".init.pid"
    half_written.touch()
    parted.run(runtime.abandon())
    assert calls(runtime)[0].endswith("delete --force box")
    assert not directory.exists() and not half_written.exists()


def test_another_bundles_container_is_left_alone(parted: Parts, make: Make, tmp_path: Path) -> None:
    """Two daemons may have one root."""
    runtime = make(NOTE)
    directory = tmp_path / "root" / "ns" / "box"
    directory.mkdir(parents=True)
    (directory / "state.json").write_text('{"config": {"labels": ["bundle=/another"]}}')
    parted.run(runtime.abandon())
    assert directory.exists() and not Path(f"{runtime.program}.calls").exists()


def test_resources_are_given_on_standard_input(parted: Parts, make: Make, tmp_path: Path) -> None:
    runtime = make(f"cat >{tmp_path}/said\n")

    async def update() -> None:
        await runtime.update(b'{"memory":{}}')

    parted.run(update())
    assert (tmp_path / "said").read_bytes() == b'{"memory":{}}'


def test_only_runc_is_started_without_executing_it(parted: Parts, make: Make, tmp_path: Path) -> None:
    """By its FIFO, which is removed; without one, and for any other program, by the command."""
    directory = tmp_path / "root" / "ns" / "box"
    directory.mkdir(parents=True)
    fifo = directory / "exec.fifo"

    def init() -> None:
        with fifo.open("wb") as file:
            file.write(b"0")

    async def start(runtime: CommandLine) -> None:
        await runtime.start(Flag(parted.loop))

    os.mkfifo(fifo)
    thread = threading.Thread(target=init)
    thread.start()
    runc = make(NOTE, "runc")
    assert isinstance(runc, Runc)
    parted.run(start(runc))
    thread.join()
    assert not fifo.exists() and not Path(f"{runc.program}.calls").exists()
    parted.run(start(runc))
    assert calls(runc)[0].endswith("start box")
    os.mkfifo(fifo)
    crun = make(NOTE, "crun")
    parted.run(start(crun))
    assert calls(crun)[0].endswith("start box") and fifo.exists()


def test_an_init_that_ends_before_its_start_is_an_error(parted: Parts, make: Make, tmp_path: Path) -> None:
    """The FIFO has no writer any more."""
    directory = tmp_path / "root" / "ns" / "box"
    directory.mkdir(parents=True)
    os.mkfifo(directory / "exec.fifo")
    runc = make(NOTE, "runc")

    async def start() -> None:
        exited = Flag(parted.loop)
        exited.set()
        await runc.start(exited)

    with pytest.raises(errors.Error, match="init of box ended before it was started"):
        parted.run(start())


def test_only_runc_itself_is_forgotten_without_it(parted: Parts, make: Make) -> None:
    """A wrapper of that name may have more to do, and so may systemd."""
    assert not make(NOTE, "crun").forget()
    assert not make(NOTE, "runc").forget()


@pytest.mark.parametrize("path", ["criu", "/usr/sbin/criu-ns", "sbin/criu"])
def test_a_criu_that_would_not_be_found_is_refused(parted: Parts, tmp_path: Path, path: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="must be an absolute path of a file called criu"):
        runtime_of(parted.shim, "box", str(tmp_path), messages.Options(criu_path=path))


def test_criu_is_found_by_path() -> None:
    """Since runc 1.1 there is no other way; nothing else of the environment changes."""
    found = environment("/opt/criu/sbin/criu")
    assert found["PATH"].startswith("/opt/criu/sbin:")
    assert {**found, "PATH": ""} == {**environment(), "PATH": ""}
