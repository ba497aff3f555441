"""A function runs in a process that shares our memory, and nothing else that it changes is ours."""

from __future__ import annotations

import os

import pytest

from windlass_linux import calls as linux
from windlass_oci_runtime import steps, vfork


def run(function: object) -> None:
    pid = vfork.run(function)  # type: ignore[arg-type] # a lambda's value is not needed
    assert os.waitpid(pid, 0) == (pid, 0)


def test_what_the_function_sets_the_caller_finds() -> None:
    found: list[int] = []
    run(lambda: found.append(os.getpid()))
    assert found != [os.getpid()]


def test_descriptors_that_it_closes_stay_open() -> None:
    reader, writer = os.pipe()
    run(lambda: linux.close_range(3))
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)


def test_its_directory_and_its_namespaces_are_its_own() -> None:
    here, namespace = os.getcwd(), os.readlink("/proc/self/ns/uts")

    def leave() -> None:
        os.chdir("/")
        linux.unshare(linux.CLONE_NEWUTS)

    run(leave)
    assert (os.getcwd(), os.readlink("/proc/self/ns/uts")) == (here, namespace)


def test_a_step_that_fails_is_reported_and_the_interpreter_goes_on() -> None:
    reader, writer = os.pipe()

    def fail() -> None:
        raise ValueError("for a reason")

    for _ in range(100):
        run(lambda: steps.attempt(iter([("a step", fail)]), writer))
        assert os.read(reader, 100) == b"a step\0for a reason"
    os.close(reader)
    os.close(writer)


def test_calls_are_as_deep_as_elsewhere() -> None:
    def deep(left: int) -> int:
        return deep(left - 1) + 1 if left else 0

    found: list[int] = []
    run(lambda: found.append(deep(200)))
    assert found == [200]


def test_a_process_forked_in_it_goes_on_alone() -> None:
    reader, writer = os.pipe()
    found: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if not pid:
            os.write(writer, b"child")
            os._exit(0)
        found.append(os.waitpid(pid, 0)[1])

    run(fork)
    assert (os.read(reader, 9), found) == (b"child", [0])
    os.close(reader)
    os.close(writer)


def test_a_process_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vfork, "CLONE_VM", 0x80000000 | 0x100 | 0x10000)  # threads without CLONE_SIGHAND: EINVAL
    with pytest.raises(OSError, match="clone"):
        vfork.run(lambda: None)
