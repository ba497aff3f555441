"""A program that cannot be executed: what clients look for in the error, by runc, by `windlass-oci` and by `ctr`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from compat.machines import Machine
from compat.test_oci_cli import Side, pytestmark, side
from oci_runtime.bundles import spec

__all__ = ["pytestmark", "side"]

IMAGE = "docker.io/library/busy:1"
MISSING = "executable file not found in $PATH"
CASES = [
    ("none", MISSING),
    ("plain", MISSING),
    ("/none", "no such file or directory"),
    ("/bin", "permission denied"),
    ("/bin/plain", "permission denied"),
    ("/bin/script", "no such file or directory"),
    ("/bin/garbage", "exec format error"),
]
"""Programs of `furnish`, and the words."""


def furnish(rootfs: Path) -> None:
    """Add a file that is not executable, a script without its interpreter, and one that is not a program."""
    for name, text, mode in (("plain", "", 0o644), ("script", "#!/none\n", 0o755), ("garbage", "\1\2", 0o755)):
        (rootfs / "bin" / name).write_text(text)
        (rootfs / "bin" / name).chmod(mode)


@pytest.mark.parametrize(("program", "words"), CASES)
def test_run_and_exec_say_why(side: Side, program: str, words: str) -> None:
    """The words are runc's, the name of the program is in them, and nothing is left."""
    furnish(side.directory / "rootfs")
    side.write(spec(program))
    done = side.run("run", "refused")
    assert done.returncode and words in done.stderr and program in done.stderr, done
    assert side.run("list", "-q").stdout == ""
    side.write(spec("sleep", "1000"))
    assert side.run("run", "-d", "box").returncode == 0
    executed = side.run("exec", "box", program)
    assert executed.returncode and words in executed.stderr and program in executed.stderr, executed
    assert "Traceback" not in done.stderr + executed.stderr


@pytest.mark.parametrize("runtime", ["io.containerd.runc.v2", "io.windlass.v1"])
@pytest.mark.parametrize(("program", "words"), [case for case in CASES if case[0] in ("none", "/none", "/bin")])
def test_ctr_says_why(windlass: Machine, runtime: str, program: str, words: str) -> None:
    """Of both runtimes of Windlass; the container's task is gone, and an exec is refused alike."""
    name = f"words-{os.getpid()}"
    done = windlass.try_ctr("run", "--rm", "--runtime", runtime, IMAGE, name, program)
    assert done.returncode and words in done.stderr, done
    assert name not in windlass.ctr("tasks", "ls")
    windlass.ctr("run", "-d", "--runtime", runtime, IMAGE, name, "/bin/sleep", "1000")
    try:
        executed = windlass.try_ctr("tasks", "exec", "--exec-id", "e", name, program)
        assert executed.returncode and words in executed.stderr, executed
    finally:
        windlass.try_ctr("tasks", "kill", "-s", "SIGKILL", name)
        windlass.try_ctr("tasks", "delete", "--force", name)
        windlass.try_ctr("containers", "delete", name)
