"""A container's log: what the program that keeps it promises, and what reading it does."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_client import datadir
from windlass_client.cli import Where
from windlass_client.datadir import DataDirectory
from windlass_client.logs import keeping, moments, showing
from windlass_client.logs.jsonfile import LONGEST, STDERR, STDOUT, Writer
from windlass_client.logs.keeping import Companions, LogOptions
from windlass_client.logs.reading import Entry, Log
from windlass_client.logs.viewing import View

ID = "box"


class Keeper:
    """The program, as a shim runs it: two pipes, and a process whose end is the container's."""

    def __init__(self, data: DataDirectory, bundle: Path, options: LogOptions, companions: Companions) -> None:
        self.data = data
        keeping.prepare(data, ID, False, options, companions)
        self.init = subprocess.Popen(["sleep", "60"])
        bundle.mkdir()
        (bundle / "init.pid").write_text(str(self.init.pid))
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        ready, notify = os.pipe()
        program = data.container(ID) / keeping.PROGRAM
        shell = f"exec {sys.executable} -IS {program} 3<&{out} 4<&{err} 5>&{notify} {out}<&- {err}<&- {notify}>&-"
        self.process = subprocess.Popen(["bash", "-c", shell], cwd=bundle, pass_fds=(out, err, notify))
        for fd in (out, err, notify):
            os.close(fd)
        os.read(ready, 1)
        os.close(ready)

    def write(self, text: str, fd: int | None = None) -> None:
        os.write(self.out if fd is None else fd, text.encode())

    def end(self) -> None:
        """Let the first process end; the pipes stay open, as containerd's shim has it."""
        self.init.kill()
        self.init.wait()
        self.process.wait(20)

    def close(self) -> None:
        self.init.kill()
        self.init.wait()
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.err)


Start = Callable[..., Keeper]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataDirectory:
    monkeypatch.setenv(datadir.VARIABLE, str(tmp_path / "data"))
    return DataDirectory.of(Where("d.sock", "default"))


@pytest.fixture
def start(data: DataDirectory, tmp_path: Path) -> Iterator[Start]:
    started: list[Keeper] = []

    def begin(options: LogOptions | None = None, companions: Companions | None = None) -> Keeper:
        bundle = tmp_path / f"bundle{len(started)}"
        started.append(Keeper(data, bundle, options or LogOptions(), companions or Companions()))
        return started[-1]

    yield begin
    for keeper in started:
        keeper.close()


def texts(data: DataDirectory, tail: int | None = None) -> list[str]:
    return [entry.text for entry in Log(data.log(ID)).entries(tail)]


def test_lines_of_both_streams_are_kept_in_dockers_format(start: Start, data: DataDirectory) -> None:
    keeper = start()
    keeper.write('one "quoted" é\n')
    keeper.write("bad\n", keeper.err)
    os.write(keeper.out, b"\xff no end")
    keeper.end()
    first, *_ = [json.loads(line) for line in data.log(ID).read_bytes().splitlines()]
    assert (first["log"], first["stream"]) == ('one "quoted" é\n', "stdout")
    entries = list(Log(data.log(ID)).entries())
    assert sorted((entry.stream, entry.text) for entry in entries) == [
        ("stderr", "bad\n"),
        ("stdout", 'one "quoted" é\n'),
        ("stdout", "\ufffd no end"),
    ]


def test_a_viewer_sees_every_byte_and_the_end(
    start: Start, data: DataDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    keeper = start()
    view = View(data.container(ID))
    view.start()
    keeper.write("to out")
    keeper.write("to err", keeper.err)
    keeper.end()
    view._thread.join(10)
    view.close()
    assert capfd.readouterr() == ("to out", "to err")


def test_a_viewer_that_came_before_the_output_sees_it_however_late_the_program_looks(
    start: Start, data: DataDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    """A busy machine lets the program look only when the container has written, and ended."""
    keeper = start()
    os.kill(keeper.process.pid, signal.SIGSTOP)
    view = View(data.container(ID))
    view.start()
    keeper.write("early")
    keeper.init.kill()
    keeper.init.wait()
    os.kill(keeper.process.pid, signal.SIGCONT)
    keeper.process.wait(20)
    view._thread.join(10)
    view.close()
    assert capfd.readouterr().out == "early"


@pytest.mark.parametrize("stays", [True, False])
def test_an_owner_is_heard_however_late_the_program_looks(
    start: Start, data: DataDirectory, tmp_path: Path, stays: bool
) -> None:
    """A container that writes nothing has ended before the program looks; its owner removes it, unless it has gone."""
    keeper = start(companions=Companions((), ("/bin/touch", str(tmp_path / "after"))))
    os.kill(keeper.process.pid, signal.SIGSTOP)
    view = View(data.container(ID))
    view.own()
    if stays:
        view.start()
    else:
        view.close()
    for name in ("out", "err"):
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), getattr(keeper, name), inheritable=False)
    os.kill(keeper.process.pid, signal.SIGCONT)
    keeper.process.wait(20)
    if stays:
        view._thread.join(10)
        view.close()
    time.sleep(0.3)
    assert (tmp_path / "after").exists() is not stays


async def test_a_viewer_that_leaves_gets_what_was_written_before(
    start: Start, data: DataDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    keeper = start()
    view = View(data.container(ID))
    view.start()
    keeper.write("x" * 50_000)
    await view.drained()
    view.close()
    assert capfd.readouterr().out == "x" * 50_000
    assert keeper.process.poll() is None


def test_a_viewer_that_goes_away_harms_nothing(start: Start, data: DataDirectory) -> None:
    keeper = start()
    with View(data.container(ID))._socket:
        keeper.write("a\n")
    for number in range(100):
        keeper.write(f"{number}\n")
    keeper.end()
    assert texts(data)[-1] == "99\n"


def test_there_is_nothing_to_view_when_nothing_runs(start: Start, data: DataDirectory) -> None:
    start().end()
    with pytest.raises(FailedPrecondition, match="does not run"):
        View(data.container(ID))


def test_a_slow_viewer_gets_all_and_holds_up_no_shim(start: Start, data: DataDirectory) -> None:
    keeper = start()
    slow = View(data.container(ID))._socket
    slow.settimeout(10)
    wanted = 3 << 20

    def write() -> None:
        for _ in range(wanted >> 12):
            os.write(keeper.out, b"y" * 4095 + b"\n")
        keeper.init.kill()

    thread = threading.Thread(target=write)
    thread.start()
    got = 0
    while got < wanted:
        message = slow.recv(1 << 17)
        assert message, f"ended after {got} bytes"
        got += len(message) - 1
        if not thread.is_alive():
            keeper.init.wait()
            keeper.process.wait(10)  # with most of it unread
    thread.join()
    assert got == wanted
    slow.close()


def test_commands_run_beside_and_afterwards(start: Start, tmp_path: Path) -> None:
    beside = ("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    afterwards = (
        "/bin/sh",
        "-c",
        f"echo $WINDLASS_CLIENT_DATA > {tmp_path}/after.new; mv {tmp_path}/after.new {tmp_path}/after",
    )
    keeper = start(companions=Companions(beside, afterwards))
    while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
        time.sleep(0.01)
    keeper.end()
    while not (tmp_path / "after").exists():
        time.sleep(0.01)
    assert (tmp_path / "after").read_text().strip() == str(tmp_path / "data")
    while Path(f"/proc/{int(pid)}/cmdline").exists() and b"sleep" in Path(f"/proc/{int(pid)}/cmdline").read_bytes():
        time.sleep(0.01)


def test_rotation_loses_nothing_for_one_who_follows(start: Start, data: DataDirectory) -> None:
    keeper = start(LogOptions(max_size=2000, max_files=50))
    got: list[str] = []
    follower = threading.Thread(target=lambda: got.extend(e.text for e in Log(data.log(ID)).entries(follow=True)))
    follower.start()
    wanted = [f"{number}\n" for number in range(500)]
    for at in range(0, 500, 10):
        keeper.write("".join(wanted[at : at + 10]))
        time.sleep(0.002)
    keeper.end()
    follower.join(10)
    assert got == wanted
    assert texts(data) == wanted
    sizes = [part.stat().st_size for part in data.container(ID).glob("*.log*")]
    assert len(sizes) > 5
    assert max(sizes) <= 2000


def test_a_disk_that_takes_no_new_file_costs_no_older_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line moved all parts on by one, until nothing of what was written before was left."""
    path = tmp_path / "x.log"
    writer = Writer(str(path), 200, 3)
    really, refused = os.open, False

    def full(path: str, flags: int, *mode: int) -> int:
        if refused and flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", full)
    for number in range(12):
        refused = 5 <= number < 11
        writer.write(STDOUT, b"line %d\n" % number)
    writer.close()
    shown = [entry.text for entry in Log(path).entries()]
    assert shown == [f"line {number}\n" for number in range(12 - len(shown), 12)] and len(shown) > 8


def test_no_more_files_are_kept_than_asked_for(tmp_path: Path) -> None:
    for count in (1, 3):
        writer = Writer(str(tmp_path / f"{count}.log"), 500, count)
        for number in range(100):
            writer.write(STDOUT, f"{number}\n".encode())
        writer.close()
        assert len(list(tmp_path.glob(f"{count}.log*"))) == count
        assert [entry.text for entry in Log(tmp_path / f"{count}.log").entries(1)] == ["99\n"]


@pytest.mark.parametrize("tail", [0, 1, 3, 10, 11, 99])
def test_the_last_lines_come_from_several_files(tmp_path: Path, tail: int) -> None:
    writer = Writer(str(tmp_path / "x.log"), 250, 9)
    for number in range(10):
        writer.write(STDOUT, f"{number}\n".encode())
    writer.close()
    wanted = [f"{number}\n" for number in range(10)]
    assert [entry.text for entry in Log(tmp_path / "x.log").entries(tail)] == wanted[len(wanted) - min(tail, 10) :]


def test_a_line_that_a_crash_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b'{"log":"a\\n","stream":"stdout","time":"1"}\n{"log":"cu')
    writer = Writer(str(path), 0, 1)
    writer.write(STDERR, b"b\n")
    writer.close()
    assert [entry.text for entry in Log(path).entries()] == ["a\n", "b\n"]


def test_a_long_line_is_kept_in_parts(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "x.log"), 0, 1)
    writer.write(STDOUT, b"z" * (LONGEST + 5))
    writer.write(STDOUT, b"\n")
    writer.close()
    assert [len(entry.text) for entry in Log(tmp_path / "x.log").entries()] == [LONGEST, 6]


def test_a_full_disk_costs_lines_and_the_log_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.log"
    writer = Writer(str(path), 0, 1)
    write, room = os.write, itertools.count()

    def full(fd: int, data: bytes) -> int:
        # half of a line, then nothing, then all, as file systems do
        match next(room):
            case 0:
                return write(fd, data[: len(data) // 2])
            case 1:
                raise OSError(28, "No space left on device")
            case _:
                return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    for text in (b"one\n", b"two\n", b"three\n"):
        writer.write(STDOUT, text)
    writer.close()
    assert [entry.text for entry in Log(path).entries()] == [
        "windlass: 2 lines of this log are lost: No space left on device\n",
        "three\n",
    ]


def test_a_time_stands_before_a_line_and_not_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    showing.show([Entry("stdout", "a", "T1"), Entry("stdout", "b\n", "T2"), Entry("stdout", "c\n", "T3")], True)
    assert capsys.readouterr().out == "T1 ab\nT3 c\n"


def test_a_span_of_time_is_chosen() -> None:
    entries = [Entry("stdout", "", moments.stamp(str(second))) for second in (10, 20, 30)]
    assert showing.chosen(entries, moments.stamp("15"), "") is not None
    assert list(showing.chosen(entries, moments.stamp("15"), moments.stamp("25"))) == entries[1:2]


def test_moments() -> None:
    assert moments.stamp("2026-12-01T10:00:00Z") == "2026-12-01T10:00:00.000000000Z"
    assert moments.stamp("2026-12-01T10:00:00.123456789+02:00") == "2026-12-01T08:00:00.123456000Z"
    assert moments.stamp("0") == "1970-01-01T00:00:00.000000000Z"
    assert moments.stamp("1h30m") < moments.stamp("10s")
    for wrong in ("", "yesterday", "10x", "9" * 40):
        with pytest.raises(InvalidArgument):
            moments.stamp(wrong)


def test_log_options() -> None:
    assert keeping.parse_log_options("json-file", ["max-size=10m", "max-file=3"]) == LogOptions(
        "json-file", 10 << 20, 3
    )
    assert keeping.parse_log_options("none", ["max-size=-1"]).max_size == 0
    for driver, option in (("syslog", "max-file=1"), ("json-file", "max-file=0"), ("json-file", "tag=x")):
        with pytest.raises(InvalidArgument, match="is not known"):
            keeping.parse_log_options(driver, [option])
    options = LogOptions("none", 5, 2)
    assert keeping.restored(keeping.describe(options)) == options


def test_the_program_imports_next_to_nothing(data: DataDirectory) -> None:
    """There is one for each container."""
    code = "import sys; sys.path.append(sys.argv[1]); import windlass_client.logs.program; print(*sys.modules)"
    path = str(Path(keeping.__file__).parents[2])
    found = subprocess.run([sys.executable, "-ISc", code, path], capture_output=True, text=True, check=True).stdout
    assert not {"re", "json", "typing", "enum", "socket", "subprocess", "pathlib"} & set(found.split())


def test_a_directory_with_a_long_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("attach")
    listener.listen()
    View(deep).close()
    listener.close()
