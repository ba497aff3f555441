"""The daemon serves without grpc, whose import would cost every start time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.namespaces.v1.namespaces_pb2_grpc import NamespacesStub
from windlass_api.containerd.services.version.v1 import version_pb2_grpc

DRIVER = """
import sys
from windlass.process import cli, daemon

run = daemon.run_loop

def run_and_tell(*arguments):
    try:
        return run(*arguments)
    finally:
        print(sorted({each.partition(".")[0] for each in sys.modules} & {"grpc", "h2", "google"}), flush=True)

daemon.run_loop = run_and_tell
sys.exit(cli.main())
"""


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    scratch = tmp_path_factory.mktemp("d")
    paths = ["--root", f"{scratch}/root", "--state", f"{scratch}/state", "--address", f"{scratch}/w.sock"]
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, *paths, "--log-level", "error"],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield scratch, process
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="the standard plugins need root")
def test_the_daemon_serves_version_and_has_not_imported_grpc(daemon: tuple[Path, subprocess.Popen[str]]) -> None:
    """With every standard plugin; a plugin imports grpc when it becomes a client of another process."""
    scratch, process = daemon
    with grpc.insecure_channel(f"unix:{scratch}/w.sock") as channel:
        assert version_pb2_grpc.VersionStub(channel).Version(Empty(), timeout=60, wait_for_ready=True).version
        NamespacesStub(channel).List(namespaces_pb2.ListNamespacesRequest(), timeout=60)  # the start has ended
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.strip() == "['google']"
