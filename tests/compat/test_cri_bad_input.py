"""Every RPC of CRI with what is missing, unknown, wrong or too long: the codes and words of containerd 2.4.

`DIFFERENT` has the answers that differ on purpose, with containerd's. Beyond those, containerd's answer to an ID of
100 kB is INTERNAL: it puts the ID into the status, whose header then is too long; ours cuts it short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from compat.bad_requests import IDS, STRANGE, Case, Stage, caller, cases, pod_config, rpcs
from compat.cri_daemon import IMAGE, SLEEP, CriDaemon, running_cri

from windlass_api.runtime.v1 import api_pb2 as cri

OK, UNKNOWN, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN, grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
Answer = tuple[grpc.StatusCode, str]
"""The code, and words that the message has."""
IDEMPOTENT = {"StopPodSandbox", "RemovePodSandbox", "StopContainer", "RemoveContainer"}
IN_STORE = {"ExecSync", "Exec", "Attach"}
NO_ID: Answer = (UNKNOWN, "prefix can't be empty")
NO_METADATA: Answer = (UNKNOWN, "must include metadata")
NO_IMAGE: Answer = (UNKNOWN, "ambiguous digest string")
BAD_REFERENCE: Answer = (UNKNOWN, "invalid reference format")
BAD_ADDRESS: Answer = (UNKNOWN, "get routes: invalid CIDR address")
EMPTY: Mapping[str, Answer] = {
    **dict.fromkeys(IDS, NO_ID),
    "CreateContainer": NO_ID,
    "RunPodSandbox": NO_METADATA,
    "ImageStatus": NO_IMAGE,
    "RemoveImage": NO_IMAGE,
    "PullImage": BAD_REFERENCE,
}
"""Requests without fields; those of all others are good."""
EXPECTED: Mapping[tuple[str, str], Answer] = {
    ("RunPodSandbox", "no metadata"): NO_METADATA,
    ("RunPodSandbox", "unknown handler"): (UNKNOWN, 'no runtime for "nope" is configured'),
    ("RunPodSandbox", "long handler"): (UNKNOWN, "no runtime for"),
    ("RunPodSandbox", "control handler"): (UNKNOWN, "no runtime for"),
    ("RunPodSandbox", "hostname of the host's network"): (UNKNOWN, "without a private UTS namespace"),
    ("RunPodSandbox", "untrusted in the host's network"): (
        UNKNOWN,
        "untrusted workload with host access is not allowed",
    ),
    ("UpdateRuntimeConfig", "no address"): BAD_ADDRESS,
    ("UpdateRuntimeConfig", "long"): BAD_ADDRESS,
    ("UpdateRuntimeConfig", "control"): BAD_ADDRESS,
    ("CreateContainer", "no metadata"): (UNKNOWN, "container config must include metadata"),
    ("CreateContainer", "no pod"): NO_ID,
    **{("CreateContainer", f"{name} pod"): (NOT_FOUND, "not found") for name in STRANGE},
    ("CreateContainer", "no image"): NO_IMAGE,
    **{("CreateContainer", f"{name} image"): (NOT_FOUND, "") for name in ("unknown", "malformed", "control", "long")},
    ("CreateContainer", "stop signal"): (INVALID, "unknown CRI stop signal 9999"),
    ("CreateContainer", "target of nothing"): NO_ID,
    ("RunPodSandbox", "long label"): (INVALID, "the limit is 4096"),
    ("CreateContainer", "group without user"): (UNKNOWN, 'user group "0" is specified without user'),
    ("CreateContainer", "unknown user"): (UNKNOWN, "no users found"),
    ("CreateContainer", "seccomp"): (UNKNOWN, 'cannot load seccomp profile "rel.json"'),
    ("CreateContainer", "device"): (UNKNOWN, "lstat /dev/nope: no such file or directory"),
    ("CreateContainer", "mount of nothing"): (UNKNOWN, 'failed to mkdir ""'),
    ("CreateContainer", "recursive without readonly"): (UNKNOWN, "recursive read-only mount conflicts with RW mount"),
    ("StartContainer", "twice"): (UNKNOWN, "container is in CONTAINER_RUNNING state"),
    ("ExecSync", "no command"): (UNKNOWN, "args must not be empty"),
    ("ExecSync", "unknown program"): (UNKNOWN, "no such file or directory"),
    ("ExecSync", "too slow"): (grpc.StatusCode.DEADLINE_EXCEEDED, "timeout 1s exceeded"),
    **{
        (rpc, name): (INVALID, words)
        for rpc in ("Exec", "Attach")
        for name, words in (("no streams", "must be set"), ("tty with stderr", "tty and stderr cannot both be true"))
    },
    **{("PullImage", name): BAD_REFERENCE for name in ("malformed", "scheme", "control", "long")},
}
"""All others are good, as by containerd."""
DIFFERENT: Mapping[tuple[str, str], tuple[Answer, grpc.StatusCode]] = {
    # a path that leads out of the pod's directory of logs could be any file of the host
    ("CreateContainer", "log outside"): ((UNKNOWN, "is not below the log_directory"), OK),
    # containerd 2.4 has neither CheckpointPod nor RestorePod
    ("CheckpointPod", "empty"): (NO_ID, grpc.StatusCode.UNIMPLEMENTED),
    ("RestorePod", "empty"): (NO_METADATA, grpc.StatusCode.UNIMPLEMENTED),
    ("RestorePod", "no metadata"): (NO_METADATA, grpc.StatusCode.UNIMPLEMENTED),
    **{
        ("RestorePod", name): ((INVALID, "checkpoint"), grpc.StatusCode.UNIMPLEMENTED)
        for name in ("no path", "relative", "absent", "long")
    },
    **{("CheckpointPod", f"id {name}"): ((NOT_FOUND, "not found"), grpc.StatusCode.UNIMPLEMENTED) for name in STRANGE},
}
LONGEST = 4000
"""Bytes of a message: gRPC's header of a status has 8 KiB, and its percent signs take three times as much."""
UNREADABLE = re.compile(r"[\x00-\x1f\x7f]")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriDaemon]:
    """A daemon for all tests; RestorePod looks for criu before it looks at anything else."""
    tools = tmp_path_factory.mktemp("tools")
    program = tools / "criu"
    program.write_text("#!/bin/sh\necho 'Version: 4.2.1'\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools), prepend=":")
        with running_cri(tmp_path_factory.mktemp("cri")) as made:
            yield made


@pytest.fixture(scope="module")
def stage(daemon: CriDaemon) -> Stage:
    pod = daemon.run_pod(daemon.pod_config("stage"))
    return Stage(pod, daemon.run_container(pod), IMAGE, caller(daemon.connection))


def expected(case: Case) -> Answer:
    """Return the answer to a bad request."""
    key = (case.rpc, case.name)
    if key in DIFFERENT:
        return DIFFERENT[key][0]
    if case.name == "empty":
        return EMPTY.get(case.rpc, (OK, ""))
    if case.name.startswith("id "):
        words = "in store: not found" if case.rpc in IN_STORE else "not found"
        return (OK, "") if case.rpc in IDEMPOTENT else (NOT_FOUND, words)
    return EXPECTED.get(key, (OK, ""))


def test_bad_requests_get_containerds_answers(daemon: CriDaemon, stage: Stage) -> None:
    wrong = []
    for case in cases(stage):
        code, text = stage.call(case.rpc, case.request)
        wanted, words = expected(case)
        if code is not wanted or words not in text:
            wrong.append((case.rpc, case.name, code, text[:300], wanted, words))
        if len(text.encode()) > LONGEST or UNREADABLE.search(text):
            wrong.append(
                (case.rpc, case.name, code, f"{len(text)} bytes, or unreadable: {text[:300]!r}", wanted, words)
            )
    assert not wrong
    assert daemon.exec(stage.container, "/bin/echo", "there") == "there\n"
    for each in daemon.pods():
        if each.id != stage.pod:
            daemon.remove_pod(each.id)


def test_the_table_has_no_case_that_is_not_tried(stage: Stage) -> None:
    tried = {(case.rpc, case.name) for case in cases(stage)}
    assert not {*EXPECTED, *DIFFERENT} - tried
    assert {rpc for rpc, _ in tried} == {*rpcs()} - {"GetContainerEvents"}
    assert len(rpcs()) == 43


def test_the_beginning_of_an_id_is_enough(daemon: CriDaemon, stage: Stage) -> None:
    for length in (63, 12):
        assert daemon.container_status(stage.container[:length]).id == stage.container
        assert daemon.pod_status(stage.pod[:length]).status.id == stage.pod
        assert [each.id for each in daemon.pods(id=stage.pod[:length])] == [stage.pod]
    longer = cri.ContainerStatusRequest(container_id=f"{stage.container}0")
    assert stage.call("ContainerStatus", longer)[0] is NOT_FOUND


def test_names_that_are_taken(daemon: CriDaemon, stage: Stage) -> None:
    """In containerd's words, by which clients know this case."""
    config = pod_config("twice")
    with daemon.pod(config) as pod:
        again = cri.RunPodSandboxRequest(config=config)
        code, text = stage.call("RunPodSandbox", again)
        name = "twice_n_twice_0"
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert text == f'failed to reserve sandbox name "{name}": name "{name}" is reserved for "{pod}"'
        container = daemon.container_config(SLEEP, "c")
        id = daemon.create_container(pod, container)
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
        code, text = stage.call("CreateContainer", request)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert f'name "c_{name}" is reserved for "{id}"' in text


def test_a_sandbox_without_logs_writes_nothing_beside_itself(daemon: CriDaemon, stage: Stage, tmp_path: Path) -> None:
    """A relative directory of logs is refused with the first container that has a log."""
    config = pod_config("relative")
    config.log_directory = "logs"
    with daemon.pod(config) as pod:
        request = cri.CreateContainerRequest(
            pod_sandbox_id=pod, config=daemon.container_config(), sandbox_config=config
        )
        code, text = stage.call("CreateContainer", request)
        assert (code, "is not absolute" in text) == (UNKNOWN, True)
