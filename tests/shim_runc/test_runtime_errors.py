"""What is told of an OCI runtime that fails: its own words, and who has ended already."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.harness import Shim, shims

from windlass import errors
from windlass_shim_runc import messages
from windlass_shim_runc.commandline import last_error
from windlass_shim_runc.messages import Message

RUNC = '{"level":"info","msg":"begin","time":"t"}\n{"level":"error","msg":"no rootfs\\n","time":"t"}\n'
CRUN = """{
  "msg": "unknown { in [sysctl]",
  "level": "error",
  "time": "2026-11-30T18:00:00Z"
}
"""
RUNSC = '{"msg":"sandbox is not running","level":"error","time":"t"}'


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (RUNC, "no rootfs"),
        (CRUN, "unknown { in [sysctl]"),
        (RUNC + CRUN, "unknown { in [sysctl]"),
        (CRUN + RUNC, "no rootfs"),
        (CRUN.replace("error", "debug"), ""),
        ("panic: {oh}\n" + RUNC, "no rootfs"),
        ('half of a line","level":"error"}\n' + CRUN, "unknown { in [sysctl]"),
        (CRUN + '{"msg": "cut', "unknown { in [sysctl]"),
        ('{"level":"error","msg":5}', ""),
        ('{"a":' * 20000, ""),
        ("", ""),
    ],
)
def test_the_last_error_of_a_log_is_found_however_it_is_laid_out(tmp_path: Path, log: str, message: str) -> None:
    """One object a line, as runc writes, or one over several, as crun does since 1.28."""
    path = tmp_path / "log.json"
    path.write_text(log)
    assert last_error(str(path), 0) == message


def test_what_an_earlier_command_has_logged_is_not_told(tmp_path: Path) -> None:
    """Only what is written from the offset on."""
    path = tmp_path / "log.json"
    path.write_text(CRUN + RUNC)
    assert last_error(str(path), len(CRUN)) == "no rootfs"
    assert last_error(str(path), len(CRUN + RUNC)) == ""
    assert last_error(str(tmp_path / "absent"), 0) == ""


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    """A shim without container."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a shim needs root on Linux to become one")
    with shims(tmp_path) as make:
        yield make()


def create(shim: Shim, program: str) -> None:
    """Have a container created by an OCI runtime."""
    options = messages.pack(messages.Options(binary_name=program))
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle), options=options)
    shim.call(Message, "Create", request)


def test_a_runtime_that_is_missing_is_quoted_as_the_client_wrote_it(shim: Shim) -> None:
    """In the quotes and words of Go, which containerd's clients look for."""
    with pytest.raises(errors.FailedPrecondition, match=r'OCI runtime "no-runc": executable file not found in \$PATH'):
        create(shim, "no-runc")
    with pytest.raises(errors.FailedPrecondition, match='OCI runtime "/no/runc": no such file or directory; install'):
        create(shim, "/no/runc")


def test_a_sandbox_that_has_ended_is_no_failure(shim: Shim) -> None:
    """runsc says that the sandbox is not running where runc finds nobody: NOT_FOUND."""
    runtime = shim.state / "runsc"
    runtime.write_text(f"""#!/bin/sh
while [ "$1" != --log ]; do shift; done; log=$2
case " $* " in
*" create "*) sleep 1000 & echo $! >"{shim.bundle}/init.pid";;
*" kill "*) echo '{RUNSC}' >>"$log"; exit 1;;
esac
""")
    runtime.chmod(0o755)
    create(shim, str(runtime))

    with pytest.raises(errors.NotFound, match="has finished already"):
        shim.kill(9, all=True)
