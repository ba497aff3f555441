"""Fault points: off by default, and exactly what was asked for otherwise."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import distributions

from windlass import faults
from windlass.gate import Gate, Handle
from windlass.process import faultpoints


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faultpoints.arm("")


def test_nothing_happens_unless_it_is_asked_for() -> None:
    for name in faultpoints.POINTS:
        faults.point(name)


def test_terms_are_used_up_in_their_order() -> None:
    faultpoints.arm("content.write=2*off->error(ENOSPC)->delay(30)")
    faults.point("content.write")
    faults.point("content.write")
    with pytest.raises(OSError, match=re.escape("fault content.write")) as caught:
        faults.point("content.write")
    assert caught.value.errno == errno.ENOSPC
    begin = time.monotonic()
    faults.point("content.write")
    assert time.monotonic() - begin >= 0.03
    faults.point("content.write")


def test_every_call_of_a_plugin_is_a_point() -> None:
    """Without anything in the plugin."""

    class Store:
        def info(self, digest: str) -> str:
            return digest

    gate = Gate("io.containerd.content.v1.content")
    handle: Store = Handle(Store(), gate)  # type: ignore[assignment] # a handle has the methods of what it stands for
    faultpoints.arm("io.containerd.content.v1.content.info=error(EIO)")
    with pytest.raises(OSError, match=re.escape("fault io.containerd.content.v1.content.info")):
        handle.info("x")
    assert handle.info("x") == "x"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("content.wriet=kill", "there is no fault point 'content.wriet'; there are content.write, "),
        ("content.write=explode", "is none of off, error"),
        ("content.write=error(EVERYTHING)", "'EVERYTHING' is not an error of Linux"),
        ("content.write", "is none of off, error"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        faultpoints.arm(text)


def test_every_point_is_somewhere() -> None:
    """And every one in the tree is listed."""
    found: set[str] = set()
    for path in (path for each in distributions() for path in each.sources()):
        found.update(re.findall(r'(?:faults\.|databases\.fault_)point\("([\w.]+)"\)', path.read_text()))
    assert found == set(faultpoints.POINTS)


def test_a_daemon_does_not_start_with_what_makes_no_sense(tmp_path: Path) -> None:
    """In one line; a drill that was not armed would prove nothing."""
    command = [sys.executable, "-c", "import sys; from windlass.process.cli import main; sys.exit(main())"]
    where = ["--root", f"{tmp_path}/root", "--state", f"{tmp_path}/state", "--address", f"{tmp_path}/d.sock"]
    environment = {**os.environ, faultpoints.VARIABLE: "content.wriet=kill"}
    done = subprocess.run([*command, *where], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "windlassd: WINDLASS_FAULTS: there is no fault point 'content.wriet'; there are content"
    )
    assert done.stderr.count("\n") == 1
