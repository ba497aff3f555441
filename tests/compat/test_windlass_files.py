"""Volumes, cp, stats, update, diff, commit and export by `windlass`, on windlassd and on Debian's containerd."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import IMAGE
from compat.images import Archive, busybox_layer, layer
from compat.machines import Machine, eventually
from compat.windlass_client import Windlass

pytestmark = pytest.mark.root

SEEDED = "docker.io/library/seeded:1"


@pytest.fixture
def windlass_(machine: Machine, tmp_path: Path) -> Iterator[Windlass]:
    """A client; containers and volumes that a test leaves are removed."""
    windlass = Windlass(machine, tmp_path)
    yield windlass
    containers = [each["container"] for each in json.loads(windlass("ps", "-a", "--json"))]
    if containers:
        windlass("rm", "-f", *containers)
    for name in windlass("volume", "ls", "-q").split():
        windlass("volume", "rm", name)


@pytest.fixture
def seeded(windlass_: Windlass, tmp_path: Path) -> Iterator[Windlass]:
    """A client of a machine with an image that declares a volume with files in it."""
    seeds = layer({"data/seed": b"seed\n", "data/sub/deep": b"deep\n"}, ("data", "data/sub"))
    archive = Archive(tmp_path / "seeded.tar", SEEDED, [busybox_layer(), seeds], Volumes={"/data": {}})
    windlass_.machine.ctr("images", "import", str(archive.path))
    yield windlass_
    windlass_("rmi", "-f", SEEDED)


def box(windlass: Windlass, *arguments: str) -> str:
    """Start a container that sleeps, and return its ID."""
    return windlass("run", "-d", *arguments, "/bin/sleep", "1000").strip()


def test_a_volume_outlives_its_containers(seeded: Windlass) -> None:
    """It gets the image's files when it is empty, and only then; read-only and nocopy are kept to."""
    cat = ("/bin/sh", "-c", "cat /data/*; echo mine > /data/mine")
    assert (
        seeded("run", "--rm", "-v", "kept:/data", SEEDED, *cat[:-1], "cat /data/seed /data/sub/deep") == "seed\ndeep\n"
    )
    seeded("run", "--rm", "-v", "kept:/data", SEEDED, "/bin/sh", "-c", "echo mine > /data/seed")
    assert seeded("run", "--rm", "-v", "kept:/data:ro", SEEDED, "/bin/cat", "/data/seed") == "mine\n"
    written = seeded.try_("run", "--rm", "-v", "kept:/data:ro", SEEDED, "/bin/touch", "/data/new")
    assert written.returncode == 1 and b"Read-only file system" in written.stderr
    mount = "type=volume,src=empty,dst=/data,volume-nocopy"
    assert seeded("run", "--rm", "--mount", mount, SEEDED, "/bin/ls", "/data") == ""
    assert seeded("volume", "ls", "-q") == "empty\nkept\n"


def test_a_volume_in_use_is_not_removed(seeded: Windlass) -> None:
    """Nor by prune; a container that does not run has it, too."""
    box(seeded, "--name", "user", "-v", "kept:/data", SEEDED)
    seeded("kill", "-s", "KILL", "user")
    assert "volume kept is in use by container user; remove that first" in seeded.refused("volume", "rm", "kept")
    assert seeded("volume", "prune", "-a", "-f") == "Total reclaimed space: 0B\n"
    assert seeded("volume", "ls", "-q", "-f", "dangling=true") == ""
    seeded("rm", "-f", "user")
    assert seeded("volume", "rm", "kept") == "kept\n"
    assert 'volume "kept" does not exist' in seeded.refused("volume", "rm", "kept")


def test_volumes_without_a_name_go_with_their_container(seeded: Windlass) -> None:
    """What the image declares is one; another container may share it."""
    seeded("run", "--rm", SEEDED, "/bin/true")
    assert seeded("volume", "ls", "-q") == ""
    box(seeded, "--name", "first", SEEDED)
    seeded("exec", "first", "/bin/sh", "-c", "echo shared > /data/shared")
    ran = seeded("run", "--rm", "--volumes-from", "first:ro", SEEDED, "/bin/cat", "/data/shared")
    assert ran == "shared\n"
    assert len(seeded("volume", "ls", "-q").split()) == 1
    [mount] = json.loads(seeded("inspect", "--format", "{{json .Mounts}}", "first"))
    assert (mount["Type"], mount["Destination"], mount["RW"]) == ("volume", "/data", True)
    seeded("rm", "-f", "first")
    assert seeded("volume", "prune", "--force").startswith("Deleted Volumes:\n")


def test_directories_of_the_host_and_tmpfs(windlass_: Windlass, tmp_path: Path) -> None:
    """A missing directory is made for -v alone; what is wrong is refused before there is a container."""
    made = tmp_path / "made"
    windlass_("run", "--rm", "-v", f"{made}:/host", IMAGE, "/bin/touch", "/host/file")
    assert (made / "file").exists()
    windlass_("run", "--rm", "-v", "./made:/host:ro", IMAGE, "/bin/cat", "/host/file")
    found = windlass_("run", "--rm", "--tmpfs", "/scratch:size=1m", IMAGE, "/bin/cat", "/proc/mounts")
    [line] = [each for each in found.splitlines() if " /scratch " in each]
    assert "noexec" in line and "size=1024k" in line
    error = windlass_.refused("run", "--rm", "--mount", f"src={tmp_path}/none,dst=/x", IMAGE, "/bin/true", code=125)
    assert f"mount source {tmp_path}/none does not exist" in error
    for bad in (("-v", "a b:/x"), ("--mount", "type=image,src=x,dst=/x"), ("-v", "v1:/x", "--tmpfs", "/x")):
        windlass_.refused("run", "--rm", *bad, IMAGE, "/bin/true", code=125)
    assert windlass_.try_("run", "-v", "/made", IMAGE, "/no/such/program").returncode == 127
    assert windlass_("ps", "-a", "-q") == windlass_("volume", "ls", "-q") == ""


def test_cp_into_and_out_of_containers(windlass_: Windlass, tmp_path: Path) -> None:
    """Running, stopped, and with volumes; as files and as streams."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/file").write_text("hello")
    (tmp_path / "in/sub/link").symlink_to("../file")
    box(windlass_, "--name", "box", "-v", "data:/data", IMAGE)

    windlass_("cp", "in", "box:/tmp")
    windlass_("cp", "in/.", "box:/data")
    assert windlass_("exec", "box", "/bin/cat", "/tmp/in/sub/link", "/data/file") == "hellohello"
    windlass_("cp", "box:/data", "out")
    assert (tmp_path / "out/sub/link").read_text() == "hello"
    stream = windlass_.try_("cp", "box:/data/file", "-").stdout
    assert names(io.BytesIO(stream)) == ["file"]
    windlass_("cp", "-", "box:/root", data=stream)
    assert windlass_("exec", "box", "/bin/cat", "/root/file") == "hello"

    windlass_("kill", "-s", "KILL", "box")
    eventually(lambda: "running" not in windlass_("ps", "-a", "--json"))
    windlass_("cp", "in/file", "box:/data/later")
    windlass_("cp", "in/file", "box:/tmp/later")
    windlass_("cp", "box:/data/later", "box.later")
    windlass_("cp", "box:/tmp/later", "box.tmp")
    assert (tmp_path / "box.later").read_text() == (tmp_path / "box.tmp").read_text() == "hello"
    volume = windlass_("volume", "inspect", "-f", "{{.Mountpoint}}", "data").strip()
    assert Path(volume, "later").read_text() == "hello"
    assert "box:/none: there is no such file or directory" in windlass_.refused("cp", "box:/none", "x")
    assert 'container "nobody" does not exist' in windlass_.refused("cp", "nobody:/x", "x")


def test_a_hostile_container_gets_nothing_of_the_host(windlass_: Windlass, tmp_path: Path) -> None:
    """It points and swaps links as fast as it can, while files go in and out."""
    (tmp_path / "secret").write_text("secret of the host")
    place = f"/../../../../../../..{tmp_path}"
    script = f"""
    mkdir -p /a/real /steal; ln -s {place} /a/link; ln -s {place}/secret /steal/file; ln -s /proc/1/root /steal/magic
    while :; do mv /a/real /a/x; mv /a/link /a/real; mv /a/real /a/link; mv /a/x /a/real; done
    """
    windlass_("run", "-d", "--name", "evil", IMAGE, "/bin/sh", "-c", script)
    eventually(lambda: windlass_.try_("exec", "evil", "/bin/ls", "/steal/magic").returncode == 0)
    (tmp_path / "gift").write_text("gift")
    assert "no such file" in windlass_.refused("cp", "-L", "evil:/steal/file", "got")
    for number in range(8):
        windlass_.try_("cp", "evil:/a", f"got{number}")
        windlass_.try_("cp", "gift", "evil:/a/real/planted")
    windlass_.try_("cp", "gift", "evil:/a/link/planted")
    files = [each for each in tmp_path.rglob("*") if each.is_file() and not each.is_symlink()]
    assert [each.name for each in files if "secret" in each.read_text()] == ["secret"]
    assert not (tmp_path / "planted").exists()


def test_stats_top_and_pause(windlass_: Windlass) -> None:
    """Of a container that uses a processor and has a limit."""
    box_id = windlass_(
        "run", "-d", "--name", "busy", "-m", "64M", IMAGE, "/bin/sh", "-c", "while :; do :; done"
    ).strip()
    row = json.loads(windlass_("stats", "--no-stream", "--format", "json", "busy"))
    assert (row["Name"], row["PIDs"]) == ("busy", "1") and row["ID"] == box_id[:12]
    assert float(row["CPUPerc"].rstrip("%")) > 0
    assert row["MemUsage"].endswith(" / 64MiB")
    assert windlass_("stats", "--no-stream").splitlines()[0].startswith("CONTAINER ID   NAME")
    top = windlass_("top", "busy").splitlines()
    assert top[0].split()[:2] == ["UID", "PID"] and "while :" in top[1] and len(top) == 2
    assert windlass_("top", "busy", "-o", "pid,comm").split()[:2] == ["PID", "COMMAND"]

    assert windlass_("pause", "busy") == "busy\n"
    assert "container busy is already paused" in windlass_.refused("pause", "busy")
    assert windlass_("inspect", "-f", "{{.State.Status}}", "busy") == "paused\n"
    assert windlass_("unpause", "busy") == "busy\n"
    assert "container busy is not paused" in windlass_.refused("unpause", "busy")
    windlass_("kill", "-s", "KILL", "busy")
    eventually(lambda: windlass_.try_("top", "busy").returncode == 1)
    assert "is not running" in windlass_.refused("pause", "busy")
    assert json.loads(windlass_("stats", "--no-stream", "--format", "json", "busy"))["PIDs"] == "0"


def test_update(windlass_: Windlass) -> None:
    """The limits of now, and those of the record."""
    box(windlass_, "--name", "box", "-m", "64M", IMAGE)
    assert windlass_("update", "-m", "32M", "--cpus", "0.5", "--pids-limit", "7", "--restart", "no", "box") == "box\n"
    assert windlass_("stats", "--no-stream", "--format", "{{.MemUsage}}", "box").endswith("/ 32MiB\n")
    form = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
    assert windlass_("inspect", "-f", form, "box") == f"{32 << 20} 500000000 7\n"
    assert "size 'x' is not a number" in windlass_.refused("update", "-m", "x", "box")
    assert "say what is to change" in windlass_.refused("update", "box")
    assert "restart policy 'maybe' is not known" in windlass_.refused("update", "--restart", "maybe", "box")


def test_diff_commit_and_export(windlass_: Windlass, tmp_path: Path) -> None:
    """Of a container that runs; the new image has what it changed, and how it was run."""
    script = "echo new > /new; rm /etc/group; echo x >> /etc/passwd; mkdir -p /d/e; exec sleep 1000"
    windlass_("run", "-d", "--name", "box", "-e", "A=b", "-v", "data:/data", IMAGE, "/bin/sh", "-c", script)
    eventually(lambda: windlass_.try_("exec", "box", "/bin/ls", "/d/e").returncode == 0)
    changed = windlass_("diff", "box").splitlines()
    assert changed == ["A /d", "A /d/e", "A /data", "C /etc", "D /etc/group", "C /etc/passwd", "A /new"]

    options = ("-a", "Ann", "-m", "first", "-c", 'CMD ["/bin/cat", "/new"]', "-c", "LABEL k=v", "-c", "ENV C=d")
    id = windlass_("commit", *options, "box", "made").strip()
    try:
        assert id.startswith("sha256:")
        assert windlass_("run", "--rm", "made") == "new\n"
        assert windlass_("run", "--rm", "made", "/bin/sh", "-c", "echo $A $C; ls /etc/group || echo gone").endswith(
            "gone\n"
        )
        [document] = json.loads(windlass_("image", "inspect", "made"))
        assert (document["Id"], document["Author"], document["Comment"]) == (id, "Ann", "first")
        assert document["Config"]["Labels"] == {"k": "v"} and {"A=b", "C=d"} <= set(document["Config"]["Env"])
        history = windlass_("history", "--format", "{{.Comment}} {{.CreatedBy}}", "made").splitlines()
        assert history[0] == "first /bin/cat /new"
        assert windlass_("inspect", "-f", "{{.State.Status}}", "box") == "running\n"
    finally:
        windlass_("rmi", "-f", "made")

    windlass_("export", "-o", "files.tar", "box")
    found = names(io.BytesIO((tmp_path / "files.tar").read_bytes()))
    assert {"new", "bin/busybox", "d/e"} <= set(found) and "etc/group" not in found


def names(stream: io.BytesIO) -> list[str]:
    with tarfile.open(fileobj=stream) as archive:
        return archive.getnames()


def test_commands_leave_nothing_behind(windlass_: Windlass) -> None:
    """No mount, no lease, no snapshot but the container's own."""
    box(windlass_, "--name", "box", IMAGE)
    before = windlass_.machine.ctr("leases", "ls", "-q"), windlass_.machine.ctr("snapshots", "ls")
    for command in (("diff", "box"), ("cp", "box:/etc/passwd", "-"), ("export", "-o", "x.tar", "box")):
        windlass_(*command)
    assert windlass_.machine.ctr("leases", "ls", "-q") == before[0]
    deadline = time.monotonic() + 20
    while windlass_.machine.ctr("snapshots", "ls") != before[1]:
        assert time.monotonic() < deadline
        windlass_.machine.collect_garbage()
        time.sleep(0.1)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "windlass-mount-" not in mounts
    assert not [each for each in os.listdir("/tmp") if each.startswith("windlass-build-")]
