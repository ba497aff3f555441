"""Filters of system calls: what a profile becomes, when it is installed, and who gets its listener."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime import seccomp
from windlass_oci_runtime.seccomp import Filter

# Any: JSON.
Profile = dict[str, Any]

SETHOSTNAME, UNKNOWN = 170, 0x3FFF
RECEIVE, SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND, seccomp_unotify(2)."""

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are x86_64's")


def profile(action: str, *names: str, default: str = "SCMP_ACT_ALLOW", **rule: object) -> Profile:
    return {"defaultAction": default, "syscalls": [{"names": list(names), "action": action, **rule}]}


def filtered(document: Profile, cache: Path, number: int, *arguments: int) -> int:
    """Return the errno of one system call in a process of its own with the filter; minus a signal that ended it."""
    pid = os.fork()
    if not pid:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        Filter(document, str(cache)).install()
        result = linux.libc().syscall(ctypes.c_long(number), *(ctypes.c_long(each) for each in arguments))
        os._exit(ctypes.get_errno() if result < 0 else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (profile("SCMP_ACT_ERRNO", "getpid"), errno.EPERM),
        (profile("SCMP_ACT_ERRNO", "getpid", errnoRet=95), 95),
        (profile("SCMP_ACT_KILL_PROCESS", "getpid"), -31),
        (profile("SCMP_ACT_KILL", "getpid"), -31),
        (profile("SCMP_ACT_TRAP", "getpid"), -31),
        (profile("SCMP_ACT_TRACE", "getpid"), errno.ENOSYS),
        (profile("SCMP_ACT_LOG", "getpid"), 0),
        (profile("SCMP_ACT_ERRNO", "no_such_call_at_all"), 0),
        (profile("SCMP_ACT_ALLOW", "getpid", default="SCMP_ACT_LOG"), 0),
    ],
)
def test_actions(tmp_path: Path, document: Profile, expected: int) -> None:
    assert filtered(document, tmp_path, 39) == expected


@pytest.mark.parametrize("flag", sorted(seccomp.FLAGS))
def test_flags(tmp_path: Path, flag: str) -> None:
    document = {**profile("SCMP_ACT_ERRNO", "getpid"), "flags": [flag]}
    if flag.endswith("WAIT_KILLABLE_RECV"):
        # Linux takes it together with a listener only.
        document = {**profile("SCMP_ACT_NOTIFY", "getppid"), "listenerPath": "/x", "flags": [flag]}
        assert filtered(document, tmp_path, 39) == 0
    else:
        assert filtered(document, tmp_path, 39) == errno.EPERM


@pytest.mark.parametrize(("value", "expected"), [(5, errno.EPERM), (6, errno.EPERM), (7, errno.EBADF)])
def test_two_conditions_on_one_argument_are_alternatives(tmp_path: Path, value: int, expected: int) -> None:
    """As in runc: libseccomp itself would want both to hold."""
    arguments = [{"index": 0, "value": number, "op": "SCMP_CMP_EQ"} for number in (5, 6)]
    document = profile("SCMP_ACT_ERRNO", "close", args=arguments)
    assert filtered(document, tmp_path, 3, value + 1000 if value == 7 else value) == expected


def test_calls_newer_than_the_profile_do_not_exist(tmp_path: Path) -> None:
    """So that C libraries take the older one; what the profile could have named is refused as it says."""
    document = profile("SCMP_ACT_ALLOW", *EVERYDAY, "seccomp", default="SCMP_ACT_ERRNO")
    assert filtered(document, tmp_path, UNKNOWN) == errno.ENOSYS
    assert filtered(document, tmp_path, SETHOSTNAME) == errno.EPERM


EVERYDAY = "read write close exit exit_group brk mmap munmap futex rt_sigaction rt_sigprocmask".split()  # noqa: SIM905


def test_programs_are_kept_and_damaged_ones_made_anew(tmp_path: Path) -> None:
    document = profile("SCMP_ACT_ERRNO", "getpid")
    first = Filter(document, str(tmp_path)).program
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == first
    kept.write_bytes(first[:-3])
    assert Filter(document, str(tmp_path)).program == first == kept.read_bytes()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (profile("SCMP_ACT_SOMETHING", "getpid"), "action: 'SCMP_ACT_SOMETHING' is not known"),
        (profile("SCMP_ACT_ALLOW", default="SCMP_ACT_NOTIFY"), "defaultAction cannot be SCMP_ACT_NOTIFY"),
        (profile("SCMP_ACT_NOTIFY", "mkdir"), "listenerPath '' is not an absolute path"),
        (
            {**profile("SCMP_ACT_NOTIFY", "write"), "listenerPath": "/run/x"},
            "SCMP_ACT_NOTIFY cannot be for write",
        ),
        (profile("SCMP_ACT_KILL", "mkdir", errnoRet=1), "errnoRet is not for action SCMP_ACT_KILL"),
        ({**profile("SCMP_ACT_KILL", "mkdir"), "flags": ["F"]}, "flags: 'F' is not known"),
        ({**profile("SCMP_ACT_KILL", "mkdir"), "architectures": ["VAX"]}, "architectures: 'VAX' is not known"),
        (profile("SCMP_ACT_KILL", "mkdir", args=[{"index": 6, "op": "SCMP_CMP_EQ"}]), "argument 6"),
        (profile("SCMP_ACT_KILL", "mkdir", args=[{"index": 0, "op": "EQ"}]), "args.op: 'EQ' is not known"),
    ],
)
def test_profiles_that_make_no_sense_are_refused(tmp_path: Path, document: Profile, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Filter(document, str(tmp_path))


def test_profiles_of_several_architectures(tmp_path: Path) -> None:
    document = {
        **profile("SCMP_ACT_ERRNO", "getpid"),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    }
    assert filtered(document, tmp_path, 39) == errno.EPERM


def contained(no_new_privileges: bool, *arguments: str, errno_ret: int | None = None) -> Spec:
    document = spec(*arguments, seccomp=profile("SCMP_ACT_ERRNO", "sethostname", errnoRet=errno_ret or errno.EPERM))
    document["process"]["noNewPrivileges"] = no_new_privileges
    for names in document["process"]["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    return document


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_container_and_an_exec_are_filtered(runtime: Runtime, no_new_privileges: bool) -> None:
    script = "hostname other; grep -E 'Seccomp:|NoNewPrivs' /proc/self/status"
    code, output = runtime.run(contained(no_new_privileges, "sh", "-c", script, errno_ret=95))
    assert (code, "not supported" in output, "Seccomp:\t2" in output) == (0, True, True), output
    assert f"NoNewPrivs:\t{int(no_new_privileges)}" in output
    box = runtime.create(contained(no_new_privileges, "sleep", "60"))
    try:
        box.start()
        code, output = box.exec(["hostname", "other"], noNewPrivileges=no_new_privileges)
        assert code == 1 and "not permitted" in output
    finally:
        box.kill()


class Agent:
    """A program that answers calls: each succeeds without being done."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "agent.sock")
        self.heard: list[Profile] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer:
                    data, ancillary, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(4))
                    (listener,) = array.array("i", ancillary[0][2])
                    self.heard.append(json.loads(data))
                threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    @staticmethod
    def _answer(listener: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                asked = fcntl.ioctl(listener, RECEIVE, bytes(80))
                (id,) = struct.unpack_from("=Q", asked)
                fcntl.ioctl(listener, SEND, struct.pack("=QqiI", id, 0, 0, 0))
        os.close(listener)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_listener_answers_for_linux(runtime: Runtime, agent: Agent, no_new_privileges: bool) -> None:
    """It gets the listener with the state of the process; init holds none of it."""
    document = contained(no_new_privileges, "sh", "-c", "hostname other && hostname; ls /proc/self/fd")
    document["linux"]["seccomp"] = {
        **profile("SCMP_ACT_NOTIFY", "sethostname", "sendmsg"),
        "listenerPath": agent.path,
        "listenerMetadata": "of a test",
    }
    document["annotations"] = {"a": "b"}
    box_id = "wl-listener"
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader) as file:
        try:
            box = runtime.create(document, writer, box_id)
        finally:
            os.close(writer)
        box.start()
        output = file.read()
        assert box.end() == 0, output
    assert output.splitlines()[0] == "box", "the call was not done"
    assert "4" not in output.splitlines()
    (heard,) = agent.heard
    assert (heard["fds"], heard["metadata"], heard["pid"]) == (["seccompFd"], "of a test", box.pid)
    assert (heard["state"]["id"], heard["state"]["status"], heard["state"]["annotations"]) == (
        box_id,
        "creating",
        {"a": "b"},
    )


def test_an_exec_has_a_listener_of_its_own(runtime: Runtime, agent: Agent) -> None:
    document = contained(False, "sleep", "60")
    document["linux"]["seccomp"] = {**profile("SCMP_ACT_NOTIFY", "sethostname"), "listenerPath": agent.path}
    box = runtime.create(document)
    try:
        box.start()
        code, output = box.exec(["hostname", "other"])
        assert (code, output) == (0, "")
        assert [each["state"]["status"] for each in agent.heard] == ["creating", "running"]
        assert agent.heard[1]["pid"] != agent.heard[1]["state"]["pid"] == box.pid
    finally:
        box.kill()


def test_a_listener_that_is_not_there_is_an_error(runtime: Runtime, tmp_path: Path) -> None:
    document = contained(False, "true")
    path = f"{tmp_path}/none.sock"
    document["linux"]["seccomp"] = {**profile("SCMP_ACT_NOTIFY", "sethostname"), "listenerPath": path}
    with pytest.raises(Exception, match=f"seccomp listener: {path}: no such file or directory"):
        runtime.create(document)
