"""What holds for every test. gRPC is told not to follow forks, before it is imported.

Tests fork workers from a process in which other tests have used gRPC. Its handlers would start its
threads again in the children, which close all descriptors and would be aborted for it. And signals are
as in a terminal: `nohup … &` starts us with SIGINT and SIGQUIT ignored, and what we start would ignore them, too.
`windlass run` makes no bridge on this machine, and keeps its files in a directory that goes with the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

import groups
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["WINDLASS_NETWORK"] = "none"
os.environ["WINDLASS_CLIENT_DATA"] = CLIENT_DATA = tempfile.mkdtemp(prefix="windlass-client-")


def pytest_unconfigure() -> None:
    """Remove what clients have kept."""
    shutil.rmtree(CLIENT_DATA, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def control_groups() -> Iterator[None]:
    """When all tests are done no container of theirs has a control group, and the parents of those are removed."""
    yield
    if sys.platform == "linux":
        assert not (left := groups.left()), f"tests have left control groups, which are removed now: {left}"
