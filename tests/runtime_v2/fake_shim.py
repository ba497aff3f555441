"""A shim without containers: speaks the Task API, and misbehaves as the spec in its bundle says.

Keys of the spec: ``hang`` lists methods that are never answered (``cleanup`` as well), ``die`` methods
on which the shim exits at once, ``fail`` maps methods to code and message,
``says`` is written to the bundle's log when it begins and at each State,
``pid`` is what it claims to be the init's, ``version`` the only one it knows,
``unclean`` is what its cleanup tells while the spec says so,
``sandbox`` is there when it serves the Sandbox API, ``hidden`` how often State and Delete do not find the init.
Every call is noted in the file ``calls`` beside the namespaces' bundles.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from windlass_api.containerd.runtime.sandbox.v1 import sandbox_pb2 as sandbox_pb
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_api.ttrpc import framing as ttrpc

CREATED, RUNNING, STOPPED = 1, 2, 3


class Refused(Exception):
    """Answered with a code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Process:
    """One pretended process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = CREATED
        self.exit_status = 0
        self.exited_at = 0
        self.ended = threading.Event()

    def end(self, status: int) -> None:
        self.status, self.exit_status, self.exited_at = STOPPED, status, int(time.time())
        self.ended.set()


class FakeShim:
    """Serves one bundle."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.spec: dict[str, Any] = json.loads((bundle / "config.json").read_bytes())
        self.processes: dict[str, Process] = {}
        self.sandbox = ""
        self.stopped = threading.Event()
        self.calls = bundle.parent.parent / "calls"
        self.say()

    def say(self) -> None:
        if "says" in self.spec:
            # Neither waits for a reader nor makes a plain file.
            with os.fdopen(os.open(self.bundle / "log", os.O_WRONLY | os.O_NONBLOCK), "w") as log:
                log.write(f"{self.spec['says']}\n")

    def serve(self, listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        decoder, lock = ttrpc.FrameDecoder(), threading.Lock()
        while data := peer.recv(65536):
            for frame in decoder.feed(data):
                threading.Thread(target=self._answer, args=(peer, lock, frame), daemon=True).start()

    def _answer(self, peer: socket.socket, lock: threading.Lock, frame: ttrpc.Frame) -> None:
        request = ttrpc.decode_request(frame.data)
        with self.calls.open("a") as file:
            file.write(f"{request.service} {request.method}\n")
        if request.method in self.spec.get("die", ()):
            os._exit(1)
        if request.method in self.spec.get("hang", ()):
            return
        try:
            response = ttrpc.Response(payload=self._call(request).SerializeToString())
        except Refused as error:
            response = ttrpc.Response(error.code, str(error))
        with lock:
            peer.sendall(ttrpc.pack_frame(frame.stream, ttrpc.RESPONSE, 0, ttrpc.encode_response(response)))
        if request.method == "Shutdown" and "" not in self.processes:
            os._exit(0)

    def _call(self, request: ttrpc.Request) -> Any:
        if request.service.endswith(".Sandbox"):
            if self.spec.get("sandbox") is None:
                raise Refused(12, f"service {request.service}")
        elif f".v{self.spec.get('version', 3)}." not in request.service:
            raise Refused(12, f"service {request.service}")
        if request.method in self.spec.get("fail", {}):
            raise Refused(*self.spec["fail"][request.method])
        if request.method in ("State", "Delete") and self.spec.get("hidden", 0) > 0:
            self.spec["hidden"] -= 1
            raise Refused(5, "not made yet")
        time.sleep(self.spec.get("slow", {}).get(request.method, 0))
        return getattr(self, f"do_{request.method.lower()}")(request.payload)

    def _process(self, exec_id: str) -> Process:
        if exec_id not in self.processes:
            raise Refused(5, f"process {exec_id!r} does not exist")
        return self.processes[exec_id]

    def do_create(self, data: bytes) -> Any:
        self.processes[""] = Process(self.spec.get("pid", os.getpid()))
        return pb.CreateTaskResponse(pid=self.processes[""].pid)

    def do_start(self, data: bytes) -> Any:
        process = self._process(pb.StartRequest.FromString(data).exec_id)
        process.status = RUNNING
        return pb.StartResponse(pid=process.pid)

    def do_exec(self, data: bytes) -> Any:
        request = pb.ExecProcessRequest.FromString(data)
        self.processes[request.exec_id] = Process(os.getpid() + 1)
        return pb.ExecProcessResponse()

    def do_kill(self, data: bytes) -> Any:
        request = pb.KillRequest.FromString(data)
        self._process(request.exec_id).end(128 + request.signal)
        return pb.ExecProcessResponse()

    def do_wait(self, data: bytes) -> Any:
        process = self._process(pb.WaitRequest.FromString(data).exec_id)
        process.ended.wait()
        answer = pb.WaitResponse(exit_status=process.exit_status)
        answer.exited_at.seconds = process.exited_at
        return answer

    def do_state(self, data: bytes) -> Any:
        request = pb.StateRequest.FromString(data)
        self.say()
        process = self._process(request.exec_id)
        answer = pb.StateResponse(id=request.id, bundle=str(self.bundle), pid=process.pid, stdout="/out")
        answer.status = process.status  # type: ignore[assignment] # the numbers are the wire's
        return answer

    def do_delete(self, data: bytes) -> Any:
        exec_id = pb.DeleteRequest.FromString(data).exec_id
        process = self._process(exec_id)
        if process.status == RUNNING:
            raise Refused(2, "cannot delete a running process")
        del self.processes[exec_id]
        answer = pb.DeleteResponse(pid=process.pid, exit_status=process.exit_status)
        answer.exited_at.seconds = process.exited_at
        return answer

    def do_connect(self, data: bytes) -> Any:
        return pb.ConnectResponse(shim_pid=os.getpid())

    def do_shutdown(self, data: bytes) -> Any:
        return pb.ExecProcessResponse()

    def do_createsandbox(self, data: bytes) -> Any:
        request = sandbox_pb.CreateSandboxRequest.FromString(data)
        self.sandbox = request.sandbox_id
        (self.bundle / "asked").write_text(str(request))
        return sandbox_pb.CreateSandboxResponse()

    def do_startsandbox(self, data: bytes) -> Any:
        return sandbox_pb.StartSandboxResponse(pid=os.getpid())

    def do_platform(self, data: bytes) -> Any:
        answer = sandbox_pb.PlatformResponse()
        answer.platform.os, answer.platform.architecture, answer.platform.variant = "linux", "arm", "v7"
        answer.platform.os_version = "dropped"
        return answer

    def do_sandboxstatus(self, data: bytes) -> Any:
        verbose = sandbox_pb.SandboxStatusRequest.FromString(data).verbose
        return sandbox_pb.SandboxStatusResponse(pid=os.getpid(), state="FINE", info={"said": "all"} if verbose else {})

    def do_pingsandbox(self, data: bytes) -> Any:
        if not self.sandbox:
            raise Refused(5, "no sandbox")
        return sandbox_pb.PingResponse()

    def do_waitsandbox(self, data: bytes) -> Any:
        self.stopped.wait()
        answer = sandbox_pb.WaitSandboxResponse(exit_status=9)
        answer.exited_at.seconds = 77
        return answer

    def do_stopsandbox(self, data: bytes) -> Any:
        self.stopped.set()
        return sandbox_pb.StopSandboxResponse()

    def do_shutdownsandbox(self, data: bytes) -> Any:
        return sandbox_pb.ShutdownSandboxResponse()

    def do_sandboxmetrics(self, data: bytes) -> Any:
        answer = sandbox_pb.SandboxMetricsResponse()
        answer.metrics.id = self.sandbox
        answer.metrics.data.type_url, answer.metrics.data.value = "io.containerd.cgroups.v2.Metrics", b"\x0a\x00"
        return answer

    def do_stats(self, data: bytes) -> Any:
        answer = pb.StatsResponse()
        answer.stats.type_url, answer.stats.value = "io.containerd.cgroups.v2.Metrics", b"\x0a\x00"
        return answer

    def do_pids(self, data: bytes) -> Any:
        answer = pb.PidsResponse()
        for process in self.processes.values():
            answer.processes.add(pid=process.pid)
        return answer


def main() -> None:
    """Run as the process that a zygote would have forked."""
    if sys.argv[1] != "fake:serve":
        told, bundle = int(sys.argv[2]), Path(sys.argv[3])
        with (bundle.parent.parent / "calls").open("a") as file:
            file.write(f"cleanup {bundle.name}\n")
        spec = json.loads((bundle / "config.json").read_bytes())
        if "cleanup" in spec.get("hang", ()):
            time.sleep(float(sys.argv[6]) + 1000)
        if "cleanup" in spec.get("die", ()):
            os._exit(1)
        os.write(told, spec.get("unclean", "done").encode())
        return
    descriptor, bundle = int(sys.argv[2]), Path(sys.argv[3])
    FakeShim(bundle).serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
