"""Pods of runtimes whose shims keep sandboxes themselves, such as those of virtual machines (`sandboxer = "shim"`)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.scratch_daemon import wait_until

from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root

TESTS = Path(__file__).parent.parent
SHIM = f"""#!{sys.executable}
import json, os, socket, sys
from pathlib import Path
sys.path[:0] = {[str(TESTS), *sys.path]!r}
from runtime_v2.fake_shim import FakeShim, sandbox_pb

class Shim(FakeShim):
    def do_sandboxstatus(self, data):
        return sandbox_pb.SandboxStatusResponse(pid=os.getpid(), state="SANDBOX_READY")
    def do_shutdownsandbox(self, data):
        os._exit(0)

bundle = Path.cwd()
if sys.argv[-1] == "start":
    (bundle / "config.json").write_text('{{"sandbox": true}}')
    path = f"@SOCKETS@/{{os.getpid()}}"
    listener = socket.create_server(path, family=socket.AF_UNIX)
    if os.fork() == 0:
        os.setsid()
        for descriptor in (0, 1, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
        Shim(bundle).serve(listener)
    print(json.dumps({{"version": 3, "address": f"unix://{{path}}", "protocol": "ttrpc"}}))
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[CriDaemon]:
    """A daemon with a handler whose runtime is a shim of another make."""
    shim = tmp_path / "containerd-shim-fakepod-v1"
    sockets = tempfile.TemporaryDirectory(prefix="fp-")  # the path of a socket is short
    shim.write_text(SHIM.replace("@SOCKETS@", sockets.name))
    shim.chmod(0o755)
    more = (
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.fakepod]\n'
        f'runtime_type = "{shim}"\nsandboxer = "shim"\n'
    )
    (tmp_path / "cri").mkdir()
    with sockets, running_cri(tmp_path / "cri", more=more) as found:
        yield found


def test_the_shim_is_asked_for_the_whole_life_of_a_pod(daemon: CriDaemon) -> None:
    config = daemon.pod_config("vm")
    pod = daemon.run_pod(config, handler="fakepod")
    (bundle,) = daemon.state.glob(f"io.containerd.sandbox.controller.v1.shim/k8s.io/{pod}")
    calls = bundle.parent.parent / "calls"

    def asked(method: str) -> bool:
        return f"containerd.runtime.sandbox.v1.Sandbox {method}" in calls.read_text()

    assert asked("CreateSandbox") and asked("StartSandbox")
    request = (bundle / "asked").read_text()
    assert f'netns_path: "/var/run/netns/cni-{pod[:8]}' in request and "runtime.v1.PodSandboxConfig" in request
    status = daemon.pod_status(pod).status
    assert status.state == cri.SANDBOX_READY and status.runtime_handler == "fakepod" and status.network.ip
    daemon.restart()
    assert daemon.pod_status(pod).status.state == cri.SANDBOX_READY
    daemon.stop_pod(pod)
    assert asked("StopSandbox") and daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY
    daemon.remove_pod(pod)
    assert asked("ShutdownSandbox")
    assert wait_until(lambda: not bundle.exists()) and not daemon.addresses_taken()


def test_the_death_of_the_shim_ends_the_pod(daemon: CriDaemon) -> None:
    with daemon.pod(handler="fakepod") as pod:
        pid = int(json.loads(daemon.pod_status(pod, verbose=True).info["info"])["pid"])
        os.kill(pid, 9)
        assert wait_until(lambda: daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY)
