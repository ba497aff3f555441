"""`ctr version|plugins|namespaces|content|snapshots|leases`: the stores by themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive, digest_of, layer
from compat.machines import Machine, eventually


@pytest.fixture
def blob(machine: Machine) -> Iterator[bytes]:
    """Content that nobody has seen, which is removed."""
    data = os.urandom(1000)
    yield data
    machine.try_ctr("content", "rm", digest_of(data))


@pytest.fixture
def key(machine: Machine) -> Iterator[str]:
    """A key for a snapshot, which is removed with those whose names begin alike, children first."""
    key = f"snap-{machine.new_id()}"
    yield key
    for name in sorted((each for each in machine.rows("snapshots", "ls") if each.startswith(key)), reverse=True):
        machine.try_ctr("snapshots", "rm", name)


def test_version_names_client_and_server(machine: Machine) -> None:
    """And the server's UUID, which stays the same."""
    first, second = machine.ctr("version"), machine.ctr("version")
    assert re.search(r"Server:\n  Version:  \S+\n  Revision:.*\n  UUID: [0-9a-f-]{36}\n", first)
    assert first == second


def test_plugins_are_listed_in_their_states(machine: Machine) -> None:
    """The types and IDs that clients look for are `ok`, and `-d` tells more."""
    listed = {tuple(line.split()[:2]): line.split()[-1] for line in machine.ctr("plugins", "ls").splitlines()[1:]}
    for kind, id in (
        ("io.containerd.content.v1", "content"),
        ("io.containerd.snapshotter.v1", "overlayfs"),
        ("io.containerd.snapshotter.v1", "native"),
        ("io.containerd.metadata.v1", "bolt"),
        ("io.containerd.differ.v1", "walking"),
        ("io.containerd.gc.v1", "scheduler"),
        ("io.containerd.runtime.v2", "task"),
        *(("io.containerd.grpc.v1", id) for id in ["containers", "content", "diff", "events", "healthcheck", "images"]),
        *(
            ("io.containerd.grpc.v1", id)
            for id in ["introspection", "leases", "namespaces", "snapshots", "tasks", "version"]
        ),
    ):
        assert listed[kind, id] == "ok", (kind, id)

    details = machine.ctr("plugins", "ls", "-d", "id==overlayfs")
    assert re.search(r"Type:\s+io\.containerd\.snapshotter\.v1\nID:\s+overlayfs\n", details)
    assert re.search(rf"root\s+{machine.root}/io\.containerd\.snapshotter\.v1\.overlayfs", details)
    assert re.search(r"Platforms:\s+linux/", details)


def test_a_namespace_lives(machine: Machine) -> None:
    """create, label, ls, rm; twice is refused."""
    name = f"{machine.namespace}-lives"
    machine.ctr("namespaces", "create", name, "colour=red")
    assert machine.rows("namespaces", "ls")[name] == [name, "colour=red"]
    again = machine.try_ctr("namespaces", "create", name)
    assert again.returncode == 1
    assert "already exists" in again.stderr

    machine.ctr("namespaces", "label", name, "colour=", "size=big")
    assert machine.rows("namespaces", "ls")[name] == [name, "size=big"]

    machine.ctr("namespaces", "rm", name)
    assert name not in machine.rows("namespaces", "ls")
    assert machine.try_ctr("namespaces", "rm", name).returncode == 0  # what is gone need not be removed


def test_a_namespace_in_use_is_not_removed(machine: Machine) -> None:
    """The refusal says what is in it."""
    done = machine.try_ctr("namespaces", "rm", machine.namespace)
    assert done.returncode == 1
    assert "must be empty" in done.stderr
    assert machine.namespace in machine.rows("namespaces", "ls")


def test_namespaces_do_not_see_each_other(machine: Machine, busy: Archive) -> None:
    """Neither images nor content of one are in the other."""
    other = subprocess.run(
        ["ctr", "-a", machine.address, "-n", f"{machine.namespace}-other", "content", "ls", "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == ""
    assert busy.digest in machine.ctr("content", "ls", "-q").split()


def test_content_is_ingested_read_labelled_and_removed(machine: Machine, blob: bytes) -> None:
    """Byte for byte; and a blob that is gone is not found."""
    digest = digest_of(blob)
    flags = ["--expected-digest", digest, "--expected-size", str(len(blob))]

    # `content ingest` has no lease, so that a collection takes what it wrote; without a deletion there comes none.
    machine.collect_garbage()
    machine.ctr("content", "ingest", *flags, "some-ref", data=blob)

    got = subprocess.run(machine.command("content", "get", digest), capture_output=True, check=True)
    assert got.stdout == blob
    assert machine.rows("content", "ls")[digest][1] == "1kB"
    machine.ctr("content", "label", digest, "colour=red", "size=big")
    labels = machine.rows("content", "ls")[digest][-1].split(",")
    assert sorted(labels) == ["colour=red", "size=big"]
    machine.ctr("content", "label", digest, "colour=")
    assert machine.rows("content", "ls")[digest][-1] == "size=big"

    assert machine.ctr("content", "rm", digest).strip() == digest
    assert digest not in machine.rows("content", "ls")
    gone = machine.try_ctr("content", "get", digest)
    assert gone.returncode == 1
    assert "not found" in gone.stderr


def test_content_that_is_not_what_it_should_be_is_refused(machine: Machine, blob: bytes) -> None:
    """And is not kept; the message names both digests."""
    expected = digest_of(b"something else")
    done = machine.try_ctr("content", "ingest", "--expected-digest", expected, "wrong", data=blob)
    assert done.returncode == 1
    assert "failed precondition" in done.stderr
    assert expected in done.stderr
    assert digest_of(blob) in done.stderr
    assert not machine.blob(digest_of(blob)).exists()


def test_a_write_that_goes_on_is_active(machine: Machine, blob: bytes) -> None:
    """`content active` lists it with its ref until it is committed."""
    with machine.background("content", "ingest", "slow-ref") as ingest:
        assert ingest.stdin is not None
        # More than ctr's buffer, or nothing is sent before the end.
        ingest.stdin.write(blob * 3000)
        eventually(lambda: "slow-ref" in machine.ctr("content", "active"))
        ingest.communicate(timeout=20)
        assert ingest.returncode == 0
    assert "slow-ref" not in machine.ctr("content", "active")
    machine.ctr("content", "rm", digest_of(blob * 3000))


def test_a_snapshot_lives(machine: Machine, busy: Archive, key: str) -> None:
    """prepare, mounts, info, usage, commit, view, ls, tree, rm."""
    parent = busy.chain_ids[0]
    assert machine.ctr("snapshots", "prepare", key, parent) == ""
    mounts = machine.ctr("snapshots", "mounts", "/target", key)
    assert re.fullmatch(r"mount -t overlay overlay /target -o \S+\n", mounts)
    upper = re.search(r"upperdir=([^,\s]+)", mounts)
    assert upper is not None
    assert upper[1].startswith(f"{machine.root}/")
    Path(upper[1], "file").write_bytes(b"x" * 5000)

    info = json.loads(machine.ctr("snapshots", "info", key))
    assert (info["Kind"], info["Name"], info["Parent"]) == ("Active", key, parent)
    assert machine.rows("snapshots", "usage", key)[key][1:3] == ["12.0", "KiB"]

    machine.ctr("snapshots", "commit", f"{key}-done", key)
    rows = machine.rows("snapshots", "ls")
    assert key not in rows
    assert rows[f"{key}-done"] == [f"{key}-done", parent, "Committed"]
    held_view(machine, f"{key}-done-view", f"{key}-done")
    assert machine.rows("snapshots", "ls")[f"{key}-done-view"][2] == "View"
    assert "upperdir" not in machine.ctr("snapshots", "mounts", "/target", f"{key}-done-view")

    tree = machine.ctr("snapshots", "tree")
    assert f" {parent}\n" in tree
    assert re.search(rf"\n  \\_ {key}-done\n    \\_ {key}-done-view\n", tree)

    refused = machine.try_ctr("snapshots", "rm", f"{key}-done")
    assert refused.returncode == 1
    assert "cannot remove snapshot with child" in refused.stderr
    machine.ctr("snapshots", "rm", f"{key}-done-view", f"{key}-done")
    assert not [each for each in machine.rows("snapshots", "ls") if each.startswith(key)]


def held_view(machine: Machine, key: str, parent: str) -> None:
    """Make a view that garbage collection leaves alone: ctr gives it no label, so it may be taken before it has one."""
    for _ in range(5):
        machine.ctr("snapshots", "view", key, parent)
        if machine.try_ctr("snapshots", "label", key, "containerd.io/gc.root=test").returncode == 0:
            return
    raise AssertionError(f"{key} is collected again and again")


def test_snapshots_that_cannot_be_are_refused(machine: Machine, key: str) -> None:
    """A parent that is not there, a key that is taken, a key that is not there."""
    orphan = machine.try_ctr("snapshots", "prepare", key, "no-such-parent")
    assert (orphan.returncode, "not found" in orphan.stderr) == (1, True)
    machine.ctr("snapshots", "prepare", key)
    twice = machine.try_ctr("snapshots", "prepare", key)
    assert (twice.returncode, "already exists" in twice.stderr) == (1, True)
    for command in ("info", "usage", "rm"):
        missing = machine.try_ctr("snapshots", command, "no-such-key")
        assert (missing.returncode, "not found" in missing.stderr) == (1, True)


def test_a_lease_lives(machine: Machine) -> None:
    """create, ls with labels, rm --sync; the same id twice is refused."""
    name = f"lease-{machine.new_id()}"
    assert machine.ctr("leases", "create", "--id", name, "colour=red") == f"{name}\n"
    words = machine.rows("leases", "ls")[name]
    assert "colour=red" in words[-1]
    assert "containerd.io/gc.expire=" in words[-1]
    twice = machine.try_ctr("leases", "create", "--id", name)
    assert (twice.returncode, "already exists" in twice.stderr) == (1, True)

    machine.ctr("leases", "rm", "--sync", name)
    assert name not in machine.rows("leases", "ls")
    gone = machine.try_ctr("leases", "rm", name)
    assert (gone.returncode, "not found" in gone.stderr) == (1, True)


def test_a_lease_without_a_name_gets_one(machine: Machine) -> None:
    """And one that does not expire has no label that says when."""
    name = machine.ctr("leases", "create", "--expires", "0").strip()
    assert machine.rows("leases", "ls")[name][-1] == "-"
    machine.ctr("leases", "rm", name)


def test_a_plugin_of_a_third_party_is_used(windlass: Machine, tmp_path: Path) -> None:
    """`examples/snapshot_copy`, which pip has installed, is listed and runs containers."""
    pytest.importorskip("snapshot_copy", reason="the example is not installed; pip install -e examples/snapshot_copy")
    from compat.images import busybox_layer

    listed = [line.split() for line in windlass.ctr("plugins", "ls").splitlines()]
    assert ["io.containerd.snapshotter.v1", "copy"] in [words[:2] for words in listed if words[-1] == "ok"]
    image = Archive(
        tmp_path / "copy.tar", "docker.io/library/copied:1", [busybox_layer(), layer({"extra": os.urandom(9)})]
    )
    windlass.ctr("images", "import", "--snapshotter", "copy", str(image.path))
    assert len(windlass.snapshot_directories("copy")) == 2
    script = "echo ran > /new; cat /new; readlink /bin/sh; ls /extra"
    command = ["run", "--rm", "--snapshotter", "copy", image.name, windlass.new_id(), "/bin/sh", "-c", script]
    assert windlass.ctr(*command) == "ran\nbusybox\n/extra\n"
    windlass.ctr("images", "rm", "--sync", image.name)
    assert windlass.snapshot_directories("copy") == set()
