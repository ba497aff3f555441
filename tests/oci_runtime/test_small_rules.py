"""Small rules that runc has: the working directory, groups with processes, what delete ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from oci_runtime.bundles import Runtime, spec

from windlass.errors import FailedPrecondition
from windlass_linux import cgroups as host
from windlass_oci_runtime import ending, state
from windlass_oci_runtime.report import Failure

USER = {"uid": 1000, "gid": 1000}


def test_an_exec_in_a_working_directory_that_only_root_may_enter(runtime: Runtime) -> None:
    (runtime.rootfs / "secret").mkdir(mode=0o700)
    box = runtime.create(spec("sleep", "1000"))
    box.start()
    assert box.exec(["pwd"], cwd="/secret", user=USER) == (0, "/secret\n")
    box.kill()


def test_a_working_directory_of_the_users_for_root_without_capabilities(runtime: Runtime) -> None:
    (runtime.rootfs / "home").mkdir(mode=0o700)
    os.chown(runtime.rootfs / "home", 1000, 1000)
    document = spec("pwd")
    document["process"].update(cwd="/home", capabilities={})
    assert runtime.run(document) == (0, "/home\n")


def groups(name: str) -> list[Path]:
    return [Path(place, f"windlass-oci-{os.getpid()}", name) for place, _, _ in host.hierarchies()]


def test_a_group_that_has_processes_is_refused_and_left_as_it_is(runtime: Runtime) -> None:
    """Neither the process in it ends, nor its group; what cleans up after the creation kills nothing either."""
    other = subprocess.Popen(["sleep", "1000"])
    try:
        for place in groups("shared"):
            place.mkdir(parents=True)
            inherit(place)
            (place / "cgroup.procs").write_text(str(other.pid))
        path = f"/windlass-oci-{os.getpid()}/shared"
        with pytest.raises(FailedPrecondition, match=r"container's cgroup is not empty: 1 process\(es\) found"):
            runtime.create(spec("true", cgroupsPath=path), id="refused")
        assert not os.path.exists(f"{runtime.root}/refused")
        ending.abandon(state.Container(runtime.root, "refused"), list(map(str, groups("shared"))))
        assert other.poll() is None
        assert all(str(other.pid) in (place / "cgroup.procs").read_text().split() for place in groups("shared"))
    finally:
        other.kill()
        other.wait()
    assert runtime.run(spec("true", cgroupsPath=f"/windlass-oci-{os.getpid()}/shared")) == (0, "")


def inherit(place: Path) -> None:
    """Give a group of `cpuset` what it needs before it may have processes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        for each in (place.parent, place):
            if (each / name).exists() and not (each / name).read_text().strip():
                (each / name).write_text((each.parent / name).read_text())


def test_a_group_that_was_removed_meanwhile(runtime: Runtime) -> None:
    """Delete is content; nothing is left."""
    box = runtime.create(spec("true"))
    box.start()
    assert box.wait() == 0
    found = box.container.read()
    assert host.remove_within(found["cgroups"]) == []
    ending.delete(box.container)
    assert not os.path.exists(box.container.directory)


@pytest.mark.parametrize("force", [False, True])
def test_delete_ends_the_others_of_a_shared_pid_namespace(runtime: Runtime, force: bool) -> None:
    document = spec("sh", "-c", "sleep 1000 & echo $!; exec sleep 1000", namespaces=[{"type": "mount"}])
    document["mounts"] = []
    reader, writer = os.pipe2(os.O_CLOEXEC)
    box = runtime.create(document, writer)
    os.close(writer)
    box.start()
    with os.fdopen(reader) as file:
        other = int(file.readline())
    if not force:
        os.kill(box.pid, signal.SIGKILL)
        box.wait()
        assert alive(other)
    ending.delete(box.container, force)
    deadline = time.monotonic() + 10
    while alive(other):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if force:
        box.wait()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_bundle_that_changes_after_the_creation(runtime: Runtime) -> None:
    """What runs is what was read; the container is deleted without the bundle, and its name is free again."""
    box = runtime.create(spec("sh", "-c", "echo as read; sleep 1000"), id="changing")
    Path(runtime.directory, "b/config.json").write_text("{")
    box.start()
    assert box.exec(["echo", "in it"]) == (0, "in it\n")
    Path(runtime.directory, "b/config.json").unlink()
    box.kill()
    assert runtime.run(spec("echo", "anew")) == (0, "anew\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no such file"), ("", "is not JSON"), ("[]", "must be an object"), ("[" * 200000, "JSON")],
)
def test_a_bundle_whose_specification_is_no_such_document(runtime: Runtime, text: str | None, words: str) -> None:
    from windlass.errors import Error
    from windlass_oci_runtime.creation import Creation

    if text is not None:
        Path(runtime.directory, "b/config.json").write_text(text)
    with pytest.raises(Error, match=words):
        Creation(runtime.root, "box", f"{runtime.directory}/b")


PLACES = [
    ("loop", "too many levels of symbolic links"),
    ("loop/x", "too many levels of symbolic links"),
    ("node", "not a directory"),
    ("fifo", "not a directory"),
    ("file/x", "not a directory"),
]


def furnish(rootfs: Path) -> None:
    (rootfs / "loop").symlink_to("loop")
    (rootfs / "link").symlink_to("/tmp")
    (rootfs / "up").symlink_to("../../../../../../tmp")
    (rootfs / "file").write_text("")
    os.mknod(rootfs / "node", 0o20666, os.makedev(1, 3))
    os.mkfifo(rootfs / "fifo")


@pytest.mark.parametrize(("name", "words"), PLACES)
def test_where_a_directory_cannot_be_mounted(runtime: Runtime, name: str, words: str) -> None:
    """The error names the destination; runc refuses the same."""
    furnish(runtime.rootfs)
    document = spec("true")
    document["mounts"].append({"destination": f"/{name}", "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(Failure) as caught:
        runtime.create(document)
    expected = f"root file system: error mounting tmpfs tmpfs to rootfs at /{name}: {words}"
    assert str(caught.value) == expected
    assert str(runtime.rootfs) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("name", ["link", "up"])
def test_links_to_elsewhere_stay_in_the_root(runtime: Runtime, name: str) -> None:
    furnish(runtime.rootfs)
    document = spec("grep", " /tmp ", "/proc/self/mountinfo")
    document["mounts"].append({"destination": f"/{name}", "type": "tmpfs", "source": "mine"})
    code, output = runtime.run(document)
    assert code == 0 and "mine" in output


@pytest.mark.parametrize("name", ["node", "fifo", "file"])
def test_a_file_is_bound_over_anything_that_is_not_a_directory(runtime: Runtime, name: str) -> None:
    furnish(runtime.rootfs)
    (runtime.directory / "source").write_text("bound")
    document = spec("cat", f"/{name}")
    mount = {"destination": f"/{name}", "type": "bind", "source": f"{runtime.directory}/source", "options": ["bind"]}
    document["mounts"].append(mount)
    assert runtime.run(document) == (0, "bound")
