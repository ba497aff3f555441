"""A daemon in a scratch directory, Debian's containerd or windlassd, and `windlass` that speaks to it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from polling import is_readable

from windlass_api.containerd.services.events.v1.events_pb2 import PublishRequest
from windlass_api.containerd.services.events.v1.events_pb2_grpc import EventsStub
from windlass_conformance.boxes import BUSYBOX
from windlass_linux import cgroups

ROOT = Path(__file__).parents[2]
IMAGE = "example.org/demo:1"
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]

NEEDS = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed; apt-get install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed; apt-get install busybox-static"),
]


class Machine:
    """A daemon in a scratch directory, and `windlass` that speaks to it."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.address = str(directory / "d.sock")
        self.namespace = f"cli-{os.getpid()}-{kind}"
        self.data = directory / "data"
        self.environment = {
            **os.environ,
            "WINDLASS_ADDRESS": self.address,
            "CONTAINERD_NAMESPACE": self.namespace,
            "WINDLASS_CLIENT_DATA": str(self.data),
            "WINDLASS_NETWORK": "none",
        }
        config = directory / "config.toml"
        lines = [
            "version = 2",
            f'root = "{directory}/root"',
            f'state = "{directory}/state"',
            f'[grpc]\naddress = "{self.address}"',
            f'[ttrpc]\naddress = "{self.address}.ttrpc"',
        ]
        if kind == "containerd":
            lines.insert(3, 'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]')
            self.command = ["containerd", "-c", str(config)]
        else:
            windlassd = "import sys; from windlass.process.cli import main; sys.exit(main())"
            self.command = [sys.executable, "-c", windlassd, "-c", str(config)]
        config.write_text("\n".join(lines))
        self.start()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self.windlass("version").returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.1)

    def windlass(self, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*WINDLASS, *arguments], env=self.environment, input=input, capture_output=True, timeout=60
        )

    def run(self, *arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self.windlass("run", *arguments, input=input)

    @contextlib.contextmanager
    def publishing(self, topic: str) -> Iterator[None]:
        """Publish an event again and again."""
        ended = threading.Event()

        def work() -> None:
            with grpc.insecure_channel(f"unix://{self.address}") as channel:
                request = PublishRequest(topic=topic, event=AnyMessage(type_url="test/ready"))
                while not ended.wait(0.1):
                    metadata = (("containerd-namespace", self.namespace),)
                    EventsStub(channel).Publish(request, timeout=10, metadata=metadata)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def leftovers(self) -> list[str]:
        ps = json.loads(self.windlass("ps", "-a", "--json").stdout)
        mounts = Path("/proc/self/mountinfo").read_text()
        fifos = self.directory / "fifo"
        return [
            *(container["container"] for container in ps),
            *(line for line in mounts.splitlines() if str(self.directory) in line),
            *(os.listdir(fifos) if fifos.exists() else ()),
            *map(str, self.data.glob("*/*/containers/*")),
        ]

    def remove_containers(self) -> None:
        names = self.windlass("ps", "-a", "-q").stdout.decode().split()
        if names:
            self.windlass("rm", "-f", *names)
        shutil.rmtree(self.directory / "fifo", ignore_errors=True)

    def stop(self) -> None:
        self.remove_containers()
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            left = cgroups.remove_within([f"{place}/{self.namespace}" for place, _, _ in cgroups.hierarchies()])
            assert not left


@contextlib.contextmanager
def running(kind: str, directory: Path) -> Iterator[Machine]:
    """Run a daemon with an image; skip the test if it is not installed."""
    if kind == "containerd" and shutil.which("containerd") is None:
        pytest.skip("containerd is not installed; apt-get install containerd")
    machine = Machine(kind, directory)
    try:
        archive = directory / "image.tar"
        script = ROOT / "scripts" / "demo_image.py"
        subprocess.run([sys.executable, str(script), str(archive), IMAGE, str(BUSYBOX)], check=True)
        imported = machine.windlass("image", "import", str(archive))
        assert imported.returncode == 0, imported.stderr
        assert imported.stdout == f"imported {IMAGE}\n".encode()
        yield machine
    finally:
        machine.stop()


def read_until(terminal: int, text: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 20
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if is_readable(terminal, 0.1):
            seen += os.read(terminal, 65536)
    return seen
