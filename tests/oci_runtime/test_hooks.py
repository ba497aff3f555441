"""Hooks: when and where they are executed, what they get, and what their failure does (runtime-spec, config, hooks)."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import InvalidArgument
from windlass_oci_runtime.report import Failure

POINTS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
RUNTIME = ("prestart", "createRuntime", "poststart", "poststop")


def hook(script: str, **more: object) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def with_hooks(*arguments: str, **points: list[dict[str, object]]) -> Spec:
    return {**spec(*arguments), "hooks": points}


def test_all_six_points(runtime: Runtime, tmp_path: Path) -> None:
    """Each has its state on standard input, its own environment, and is in the right namespaces, in order."""
    # A bind mount of the host's directory, so that startContainer can write there too.
    document = with_hooks("true")
    document["mounts"].append({"destination": "/out", "type": "bind", "source": str(tmp_path), "options": ["bind"]})
    (runtime.rootfs / "bin/readlink").symlink_to("busybox")
    document["hooks"] = {}
    for point in POINTS:
        out = "/out" if point == "startContainer" else str(tmp_path)
        script = f"cat > {out}/{point}; readlink /proc/self/ns/mnt > {out}/{point}.ns; echo $A >> {out}/order"
        document["hooks"][point] = [hook(script, env=[f"A={point}", "PATH=/bin:/usr/bin"])]
    document["annotations"] = {"key": "value"}
    box = runtime.create(document)
    box.start()
    assert box.end() == 0
    states = {point: json.loads((tmp_path / point).read_text()) for point in POINTS}
    # As with runc, hooks after the start may be done before those of init, which begin at the same moment.
    order = (tmp_path / "order").read_text().split()
    assert (order[:3], set(order[3:5]), order[5:]) == (list(POINTS[:3]), set(POINTS[3:5]), list(POINTS[5:]))
    assert [states[point]["status"] for point in POINTS] == [
        *["creating"] * 3,
        "created",
        "running",
        "stopped",
    ]
    assert {each["id"] for each in states.values()} == {box.id}
    assert all(each["annotations"] == {"key": "value"} for each in states.values())
    assert states["prestart"]["pid"] == states["poststart"]["pid"] == box.pid
    assert states["createContainer"]["pid"] == states["startContainer"]["pid"] == 1
    assert "pid" not in states["poststop"]
    own = os.readlink("/proc/self/ns/mnt")
    assert {point for point in POINTS if (tmp_path / f"{point}.ns").read_text().strip() == own} == set(RUNTIME)


@pytest.mark.parametrize("point", POINTS[:3])
def test_a_hook_that_fails_fails_the_creation(runtime: Runtime, point: str) -> None:
    with pytest.raises(Failure, match=rf"error running {point} hook #1: exit status 3, its output: so it is"):
        runtime.create(with_hooks("true", **{point: [hook("true"), hook("echo so it is; exit 3")]}))


def test_a_hook_that_fails_at_the_start_keeps_the_program_from_running(runtime: Runtime) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader) as file:
        box = runtime.create(with_hooks("echo", "ran", startContainer=[hook("exit 1")]), writer)
        os.close(writer)
        box.start()
        assert file.read() == ""
        assert box.end() == 1


def test_hooks_after_start_and_end_only_warn(
    runtime: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The others go on."""
    hooks = [hook("exit 5"), hook(f"echo second >> {tmp_path}/out")]
    box = runtime.create(with_hooks("true", poststart=hooks, poststop=hooks))
    box.start()
    assert box.end() == 0
    assert (tmp_path / "out").read_text() == "second\nsecond\n"
    said = capfd.readouterr().err
    assert "warning: error running poststart hook #0: exit status 5" in said
    assert "warning: error running poststop hook #0: exit status 5" in said


@pytest.mark.parametrize("script", ["sleep 100", "yes"])
def test_a_hook_that_does_not_end_is_ended(runtime: Runtime, script: str) -> None:
    """One that goes on talking, too."""
    with pytest.raises(Failure, match="prestart hook #0: it did not end in 1 s, and was killed"):
        runtime.create(with_hooks("true", prestart=[hook(f"exec {script}", timeout=1)]))


def test_making_a_container_does_not_wait_for_hooks(runtime: Runtime, tmp_path: Path) -> None:
    """`spawn` returns while they run; only the report comes after them."""
    from windlass_oci_runtime.creation import Creation

    gate = tmp_path / "gate"
    os.mkfifo(gate)
    document = with_hooks("true", createRuntime=[hook(f"cat {gate}")])
    document["linux"]["cgroupsPath"] = f"/windlass-oci-{os.getpid()}/hooked"
    creation = Creation(runtime.root, "hooked", runtime.bundle(document))
    try:
        creation.spawn({})
        gate.write_text("go on")
        pid = creation.settle()
    finally:
        creation.undo()
    os.waitpid(pid, 0)


def test_descriptors_and_ignored_signals_do_not_come_along(runtime: Runtime, tmp_path: Path) -> None:
    script = f"ls -l /proc/self/fd > {tmp_path}/count; grep SigIgn /proc/self/status > {tmp_path}/signals"
    code, _ = runtime.run(with_hooks("true", prestart=[hook(script)]))
    assert code == 0
    opened = [line.split()[8] for line in (tmp_path / "count").read_text().splitlines()[1:]]
    assert opened == ["0", "1", "2", "3"], "the last one is the directory"
    assert int((tmp_path / "signals").read_text().split()[1], 16) & 1 << 12 == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "bin/true"}, r"hooks.prestart\[0\].path 'bin/true' is not an absolute path"),
        ({"path": "/bin/true", "timeout": 0}, r"hooks.prestart\[0\].timeout 0 is not more than 0"),
        ({"path": "/bin/true", "timeout": -1}, r"timeout -1"),
        ({}, "path '' is not an absolute path"),
    ],
)
def test_hooks_that_the_specification_forbids(runtime: Runtime, given: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        runtime.create(with_hooks("true", prestart=[given]))


def test_a_hook_that_cannot_be_executed_is_named(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(stat.S_IRUSR)
    began = time.monotonic()
    for path, why in ((tmp_path / "none", "no such file or directory"), (tmp_path / "file", "permission denied")):
        with pytest.raises(Failure, match=f"error running createRuntime hook #0: {path}: {why}"):
            runtime.create(with_hooks("true", createRuntime=[{"path": str(path)}]))
    assert time.monotonic() - began < 60
