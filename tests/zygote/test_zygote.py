"""What the zygote promises to the daemon, with real processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from polling import is_readable

from windlass.contracts.zygote import Child
from windlass.errors import Internal, Unavailable
from windlass.process import nofile
from windlass_zygote.per_package import ZygotePerPackage
from windlass_zygote.spawner import ForkingZygote

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking helpers is done on Linux only")

T = TypeVar("T")

ENTRIES = '''
"""Entries that the tests' children run."""
import os, socket, sys, time

def tell(arguments, descriptors):
    """Write facts about this process to the given descriptor."""
    facts = {
        "pid": os.getpid(), "session": os.getsid(0), "arguments": arguments,
        "open": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "stdin": os.readlink("/proc/self/fd/0"), "stdout": os.readlink("/proc/self/fd/1"),
        "inheritable": [os.get_inheritable(fd) for fd in descriptors],
        "modules": [name for name in ("grpc", "asyncio", "json.tool") if name in sys.modules],
        "threads": len(os.listdir("/proc/self/task")),
        "cmdline": open("/proc/self/cmdline").read().rstrip("\\0"),
    }
    os.write(descriptors[0], repr(facts).encode())
    return 0

def linger(arguments, descriptors):
    """Live until the descriptor's other end is closed."""
    os.write(descriptors[0], b"up")
    os.read(descriptors[0], 1)
    return 0

def limits(arguments, descriptors):
    """Tell the soft limit of open descriptors: this process's own, and that of a program that it executes."""
    import resource, subprocess
    from windlass.process import nofile
    with nofile.Found():
        executed = subprocess.check_output(["sh", "-c", "ulimit -Sn"])
    os.write(descriptors[0], b"%d %s" % (resource.getrlimit(resource.RLIMIT_NOFILE)[0], executed))
    return 0

def fail(arguments, descriptors):
    """Exit with a number."""
    return int(arguments[0])
'''


@pytest.fixture
def zygote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkingZygote]:
    """A zygote that can import the entries above."""
    (tmp_path / "zygote_entries.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    zygote = ForkingZygote()
    yield zygote
    zygote.close()


def ended(child: Child, timeout: float = 5.0) -> bool:
    """Whether the child ends in time; closes its pidfd."""
    try:
        return is_readable(child.pidfd, timeout)
    finally:
        os.close(child.pidfd)


def tell(zygote: ForkingZygote, arguments: Sequence[str] = ()) -> dict[str, object]:
    """Spawn a child that reports about itself."""
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            child = zygote.spawn("zygote_entries:tell", arguments, [theirs.fileno()])
        assert ended(child)
        return dict(eval(mine.recv(65536)), spawned=child.pid)


def test_a_child_is_a_session_leader_with_only_its_descriptors(zygote: ForkingZygote) -> None:
    """Standard input and output are /dev/null; what was passed is close-on-exec; nothing else is open."""
    facts = tell(zygote, ["one", "two"])

    assert facts["pid"] == facts["spawned"] == facts["session"]
    assert facts["arguments"] == ["one", "two"]
    assert facts["stdin"] == facts["stdout"] == "/dev/null"
    assert facts["inheritable"] == [False]
    # 0, 1, 2, the one passed, and the directory being listed.
    assert len(facts["open"]) == 5  # type: ignore[arg-type]
    assert facts["threads"] == 1
    assert facts["cmdline"] == "zygote_entries:tell one two"


def test_preloaded_modules_are_there_also_in_a_successor(zygote: ForkingZygote) -> None:
    """preload holds for the next zygote too, and nothing heavy comes uninvited."""
    assert tell(zygote)["modules"] == []

    zygote.preload(["json.tool"])
    assert tell(zygote)["modules"] == ["json.tool"]
    os.kill(zygote.pid, signal.SIGKILL)

    assert tell(zygote)["modules"] == ["json.tool"]


def test_a_killed_zygote_is_replaced_and_its_children_live_on(zygote: ForkingZygote) -> None:
    """kill -9 of the zygote breaks neither the running child nor the next spawn."""
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            child = zygote.spawn("zygote_entries:linger", [], [theirs.fileno()])
        assert mine.recv(2) == b"up"
        first = zygote.pid
        os.kill(first, signal.SIGKILL)

        assert tell(zygote)
        assert zygote.pid != first
        assert not is_readable(child.pidfd, 0)
    assert ended(child)


def test_a_stopped_zygote_is_an_error_within_the_deadline_and_then_replaced(zygote: ForkingZygote) -> None:
    """A zygote that hangs costs its caller the timeout, and the next caller nothing."""
    tell(zygote)
    assert soon(lambda: reserve(zygote.pid))
    os.kill(zygote.pid, signal.SIGSTOP)
    tell(zygote)  # by the child in reserve, which needs no zygote any more

    started = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer"):
        zygote.spawn("zygote_entries:fail", ["0"], [], timeout=0.3)

    assert time.monotonic() - started < 3
    assert tell(zygote)


def reserve(zygote: int) -> list[int]:
    """Return the children that wait for a request."""
    found = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return [int(pid) for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() == "windlass-waits"]


def soon(condition: Callable[[], T]) -> T:
    """Return what is true within five seconds."""
    end = time.monotonic() + 5
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_a_child_in_reserve_is_used_by_the_next_spawn_and_ends_with_the_daemon(zygote: ForkingZygote) -> None:
    """The caller does not wait for its fork; nobody leaves it behind."""
    tell(zygote)
    (waiting,) = soon(lambda: reserve(zygote.pid))
    assert tell(zygote)["pid"] == waiting
    (waiting,) = soon(lambda: reserve(zygote.pid))
    zygote.close()
    assert soon(lambda: not Path(f"/proc/{waiting}").exists())


def test_modules_preloaded_later_are_in_the_next_child(zygote: ForkingZygote) -> None:
    """One in reserve that lacks them is not used."""
    tell(zygote)
    soon(lambda: reserve(zygote.pid))
    zygote.preload(["json.tool"])
    assert "json.tool" in tell(zygote)["modules"]  # type: ignore[operator] # a list


def test_packages_have_zygotes_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one imports is not in another's children."""
    for name in ("one_package", "another_package"):
        (tmp_path / f"{name}.py").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    zygotes = ZygotePerPackage()
    try:
        zygotes.preload(["one_package", "json.tool"])
        mine, theirs = socket.socketpair()
        with mine, theirs:
            for name in ("one_package", "another_package"):
                child = zygotes.spawn(f"{name}:tell", (), [theirs.fileno()])
                assert ended(child)
                assert eval(mine.recv(65536))["modules"] == []
    finally:
        zygotes.close()
    with pytest.raises(Unavailable, match="stopping"):
        zygotes.spawn("one_package:tell", (), ())


def test_no_zombies_remain(zygote: ForkingZygote) -> None:
    """Neither the daemon nor the zygote keeps a dead child."""
    for code in range(5):
        assert ended(zygote.spawn("zygote_entries:fail", [str(code)], []))
    time.sleep(0.05)

    states = []
    for task in ("self", str(zygote.pid)):
        children = Path(f"/proc/{task}/task/{os.getpid() if task == 'self' else task}/children").read_text().split()
        states += [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
    assert "Z" not in states


def test_an_entry_that_does_not_exist_says_so(zygote: ForkingZygote) -> None:
    """The caller gets the import error, and the zygote serves on."""
    for entry, words in (("no_such_module:run", "no_such_module"), ("json:nothing", "nothing"), ("json", "function")):
        with pytest.raises(Internal, match=words):
            zygote.spawn(entry, [], [])
    assert tell(zygote)


def test_threads_spawn_at_the_same_time(zygote: ForkingZygote) -> None:
    """Every caller gets its own child, also while the zygote is killed under them."""
    found: list[int] = []

    def work() -> None:
        for _ in range(5):
            found.append(tell(zygote)["pid"])  # type: ignore[arg-type]

    tell(zygote)
    first = zygote.pid
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    os.kill(first, signal.SIGKILL)
    for thread in threads:
        thread.join()

    assert len(set(found)) == 20


def test_close_ends_the_zygote_and_refuses_spawns(zygote: ForkingZygote) -> None:
    """After close there is no process, and spawn says why."""
    tell(zygote)
    pid = zygote.pid

    zygote.close()

    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Unavailable, match="stopping"):
        zygote.spawn("zygote_entries:fail", ["0"], [])


def test_descriptors_of_the_caller_do_not_leak(zygote: ForkingZygote) -> None:
    """Spawning leaves the daemon with the descriptors it had."""
    tell(zygote)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        tell(zygote)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_zygote_ends_with_the_daemon(tmp_path: Path) -> None:
    """kill -9 of the daemon leaves no zygote behind."""
    program = (
        "import sys; sys.path[:] = eval(sys.argv[1])\n"
        "from windlass_zygote.spawner import ForkingZygote\n"
        "import os, signal\n"
        "zygote = ForkingZygote(); zygote.start(); print(zygote.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", program, repr(sys.path)],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
    os.waitpid(pid, 0)
    zygote_pid = int(out.read_text())

    deadline = time.monotonic() + 5
    while Path(f"/proc/{zygote_pid}/cmdline").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{zygote_pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    assert time.monotonic() < deadline


def test_without_room_for_descriptors_no_child_runs_unseen(zygote: ForkingZygote) -> None:
    """However few are left: the caller gets a child or Unavailable, and later there are children again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    mine, theirs = socket.socketpair()
    with mine, theirs:
        tell(zygote)
        for spare in range(10):
            child = None
            with contextlib.ExitStack() as stack:
                stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest_free(spare), hard))
                with contextlib.suppress(Unavailable):
                    child = zygote.spawn("zygote_entries:linger", (), [theirs.fileno()])
            if child is not None:
                assert mine.recv(2) == b"up"
                mine.send(b"x")
                assert ended(child)
            assert not is_readable(mine.fileno(), 0.1), "a child runs that the caller knows nothing of"
            assert tell(zygote)["arguments"] == []


def test_children_have_the_hard_limit_and_what_they_execute_the_daemons_own(
    zygote: ForkingZygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zygote raises it once for all of them, so that no child has to."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip(f"the hard limit of open files is {limits[1]}; raise it to 2048")
    monkeypatch.setattr(nofile, "_found", 1500)
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            assert ended(zygote.spawn("zygote_entries:limits", (), [theirs.fileno()]))
        assert mine.recv(100).split() == [str(limits[1]).encode(), b"1500"]


def highest_free(spare: int) -> int:
    """Return a limit below which so many numbers of descriptors are free."""
    numbers = (fd for fd in range(1 << 20) if not Path(f"/proc/self/fd/{fd}").exists())
    return next(itertools.islice(numbers, spare, None))
