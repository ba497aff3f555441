"""What holds for every test. gRPC is told not to follow forks, before it is imported.

Tests fork workers from a process in which other tests have used gRPC. Its handlers would start its
threads again in the children, which close all descriptors and would be aborted for it. And signals are
as in a terminal: `nohup … &` starts us with SIGINT and SIGQUIT ignored, and what we start would ignore them, too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import groups
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.fixture(scope="session", autouse=True)
def control_groups() -> Iterator[None]:
    """When all tests are done no container of theirs has a control group, and the parents of those are removed."""
    yield
    if sys.platform == "linux":
        assert not (left := groups.left()), f"tests have left control groups, which are removed now: {left}"
