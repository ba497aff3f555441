"""Parts of the daemon that need no process of their own: log forms, process set-up, small commands."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import groups
import pytest

from windlass.errors import StartError
from windlass.process import logs, ocihook, publish
from windlass.process import setup as process
from windlass_linux import cgroups


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("x", level, "f", 1, message, None, None)
    made.created = 0.5
    vars(made).update(extra)
    return made


def test_text_lines_are_logruss() -> None:
    """Time, level, message, then fields, quoted where they need it."""
    line = logs.Text().format(record('a "b"\nc', logging.WARNING, id="x-1", reason="two words", n=3))

    assert line == (
        'time="1970-01-01T00:00:00.500000Z" level=warning msg="a \\"b\\"\\nc" id=x-1 reason="two words" n=3'
    )


def test_json_lines_are_objects() -> None:
    """One a line, with the fields beside the message."""
    line = logs.Json().format(record("a\nb", logs.TRACE, id="x"))

    assert json.loads(line) == {"time": "1970-01-01T00:00:00.500000Z", "level": "trace", "msg": "a\nb", "id": "x"}
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "level", "passes"),
    [
        ("windlass.boot", logging.DEBUG, True),
        ("windlass_registry.client", logging.DEBUG, True),
        ("theirs.plugin", logging.DEBUG, True),
        ("asyncio", logging.DEBUG, False),
        ("urllib3.connectionpool", logging.INFO, False),
        ("urllib3.connectionpool", logging.WARNING, True),
    ],
)
def test_libraries_make_no_noise(name: str, level: int, passes: bool) -> None:
    """On level debug the daemon and its plugins speak; a library's warning is heard."""
    made = logging.LogRecord(name, level, "f", 1, "x", None, None)
    assert logs.Ours(["theirs"]).filter(made) is passes


def test_help_imports_nothing_that_costs() -> None:
    """The parser is there before plugins, asyncio or grpc are."""
    code = "import sys; from windlass.process.cli import parser; parser(); print(sorted(sys.modules))"
    kernel = str(Path(__file__).parents[2] / "kernel")
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": kernel}, capture_output=True, check=True)

    assert not {b"stevedore", b"grpc", b"asyncio", b"tomlkit"} & {
        name.strip(b"[]',\n ") for name in found.stdout.split(b", ")
    }


def test_a_second_daemon_on_one_root_is_refused(tmp_path: Path) -> None:
    """Until the first one's process is gone."""
    first = process.hold(tmp_path, wait=0)
    with pytest.raises(StartError, match=r"is in use by another windlassd"):
        process.hold(tmp_path, wait=0.1)
    os.close(first)

    os.close(process.hold(tmp_path, wait=0))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a directory of another user")


@needs_root
@pytest.mark.parametrize("link", [False, True])
def test_a_directory_of_another_owner_is_refused(tmp_path: Path, link: bool) -> None:
    """They, or the owner of a link, could put into it what the daemon trusts; nothing of it is changed."""
    place = tmp_path / "place"
    if link:
        place.symlink_to(tmp_path / "real")
        (tmp_path / "real").mkdir(0o755)
    else:
        place.mkdir(0o755)
    os.chown(place, 1234, 1234, follow_symlinks=False)
    with pytest.raises(
        StartError, match=r"^root: .*/place belongs to user 1234 and windlassd runs as 0; choose another"
    ):
        process.make_directory(place, 0o700, "root")
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_directory_of_ours_is_closed(tmp_path: Path) -> None:
    """Also one that was there before."""
    (tmp_path / "old").mkdir(0o777)
    for name in ("old", "new"):
        process.make_directory(tmp_path / name, 0o700, "root")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_an_oom_score_that_is_refused_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A daemon in somebody's container still runs."""
    file = tmp_path / "oom_score_adj"
    process.set_oom_score(-5, file)
    assert file.read_text() == "-5"

    process.set_oom_score(-5, tmp_path / "none" / "file")
    assert "oom_score -5 is not set" in caplog.text


def test_the_control_group_of_version_2_is_joined(tmp_path: Path) -> None:
    """It is made when it is not there."""
    (tmp_path / "cgroup.controllers").touch()

    process.join_cgroup("/system/windlass", tmp_path)

    assert (tmp_path / "system/windlass/cgroup.procs").read_text() == "0"


def test_the_control_groups_of_version_1_are_joined(tmp_path: Path) -> None:
    """One in each hierarchy; names that are links to another are not hierarchies."""
    (tmp_path / "cpu,cpuacct").mkdir()
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")

    process.join_cgroup("windlass", tmp_path)

    assert (tmp_path / "memory/windlass/cgroup.procs").read_text() == "0"
    assert (tmp_path / "cpu,cpuacct/windlass/cgroup.procs").read_text() == "0"


@pytest.mark.skipif(not os.access("/sys/fs/cgroup", os.W_OK), reason="control groups cannot be made here")
def test_a_control_group_of_this_machine_is_joined() -> None:
    """In every hierarchy, however deep: a new cpuset of version 1 has no processors, and nothing can join it."""
    top = groups.parent(f"windlass-test-join-{os.getpid()}")
    code = f"""
from pathlib import Path
from windlass.process import setup as process

process.join_cgroup("{top}/below")
print(Path("/proc/self/cgroup").read_text())
"""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        joined = [line for line in done.stdout.split() if line.endswith(f"/{top}/below")]
        assert len(joined) == len(cgroups.hierarchies()), done.stdout
    finally:
        left = cgroups.remove_within([f"{place}/{top}" for place, _, _ in cgroups.hierarchies()])
    assert left == []


@pytest.mark.parametrize("path", ["../x", "/", "a/../../b", "."])
def test_a_control_group_outside_is_refused(tmp_path: Path, path: str) -> None:
    """The path stays below the mount point."""
    with pytest.raises(StartError, match=r"is not a path below"):
        process.join_cgroup(path, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_published_event_is_an_envelope() -> None:
    """The bytes are those that the generated modules read."""
    module = "windlass_api.containerd.services.events.v1.events_pb2"
    events = pytest.importorskip(module, reason="windlass-api is not installed")

    request = events.ForwardRequest.FromString(
        publish.forward_request(1_700_000_000_000_000_123, "ns", "/tasks/exit", b"\x0a\x01t\x12\x02vv")
    )

    assert (request.envelope.namespace, request.envelope.topic) == ("ns", "/tasks/exit")
    assert (request.envelope.timestamp.seconds, request.envelope.timestamp.nanos) == (1_700_000_000, 123)
    assert (request.envelope.event.type_url, request.envelope.event.value) == ("t", b"vv")


def test_a_hook_gets_the_containers_values(tmp_path: Path) -> None:
    """From the state on stdin and the bundle's config.json."""
    (tmp_path / "config.json").write_text('{"root": {"path": "rootfs"}}')
    state = {"id": "c1", "bundle": str(tmp_path), "pid": 7, "status": "created", "annotations": {"k": "v"}}

    values = ocihook.read_values(io.BytesIO(json.dumps(state).encode()))

    template = '{{id}} {{ pid }} {{rootfs}} {{annotation "k"}} {{annotation "none"}}{{status}} {x}'
    assert ocihook.expand(template, values) == f"c1 7 {tmp_path}/rootfs v created {{x}}"
    with pytest.raises(StartError, match=r"knows no \{\{nothing\}\}"):
        ocihook.expand("{{nothing}}", values)


@pytest.mark.parametrize("end", [[], ["--"]])
def test_a_hook_may_be_named_after_two_dashes(end: list[str], tmp_path: Path) -> None:
    """So that options of the program are not ours; containerd's own test writes `oci-hook -- ps --pid {{pid}}`."""
    (tmp_path / "config.json").write_text("{}")
    state = json.dumps({"bundle": str(tmp_path), "pid": 7})
    command = [sys.executable, "-c", "import sys; from windlass.process.cli import main; sys.exit(main())", "oci-hook"]

    program = ["printf", "%s.", "--pid", "{{pid}}", "--", "x"]
    done = subprocess.run([*command, *end, *program], input=state, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "--pid.7.--.x.", "")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_state_that_is_no_object_is_refused(text: bytes) -> None:
    """What an OCI runtime never sends."""
    with pytest.raises(StartError, match=r"state on stdin is n"):
        ocihook.read_values(io.BytesIO(text))
