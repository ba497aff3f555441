"""Directories as a containerd leaves them, with databases written by the tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from adopt.boltfile import BoltFile, Tree, message, signed, time, unsigned

from windlass_adopt.places import CONTENT, CRI, META_DB, METADATA, SNAPSHOT_DB, SNAPSHOTTER, TASKS, Places

NOW = 1_700_000_000_123_456_789
TIMES: Tree = {"createdat": time(NOW), "updatedat": time(NOW + 1)}
BLOBS = (b"layer", b"config", b"manifest")
POD, CONTAINER = "pod1", "ctr1"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def kept(version: str, **fields: object) -> bytes:
    """Return a record of CRI."""
    return message(
        "github.com/containerd/cri/pkg/store/Metadata", json.dumps({"Version": version, "Metadata": fields}).encode()
    )


def container(snapshot: str = "", **more: bytes | Tree) -> Tree:
    """Return the record of a container."""
    found: Tree = {
        **TIMES,
        "image": b"docker.io/library/busy:1",
        "runtime": {"name": b"io.containerd.runc.v2"},
        "spec": message(
            "types.containerd.io/opencontainers/runtime-spec/1/Spec",
            b'{"process": {"user": {"uid": 1, "gid": 2}}, "linux": {}}',
        ),
        **more,
    }
    return {**found, "snapshotter": b"overlayfs", "snapshotKey": snapshot.encode()} if snapshot else found


def default_namespace() -> Tree:
    """Return an image, its snapshot, a container on it, and a lease."""
    target: Tree = {
        "digest": digest(BLOBS[2]).encode(),
        "mediatype": b"application/vnd.oci.image.manifest.v1+json",
        "size": signed(8),
    }
    return {
        "labels": {"team": b"a"},
        "images": {"docker.io/library/busy:1": {**TIMES, "labels": {"x": b"y"}, "target": target}},
        "containers": {"c1": container("c1", labels={"k": b"v"}, extensions={"e": message("t", b"v")})},
        "content": {"blob": {digest(each): {**TIMES, "size": signed(len(each))} for each in BLOBS}, "ingests": {}},
        "snapshots": {
            "overlayfs": {
                "sha256:chain": {**TIMES, "name": b"default/2/sha256:chain", "children": {"c1": b""}},
                "c1": {**TIMES, "name": b"default/7/c1", "parent": b"sha256:chain"},
            }
        },
        "leases": {
            "l1": {
                "createdat": time(NOW),
                "labels": {"containerd.io/gc.flat": b"x"},
                "content": {digest(BLOBS[0]): b""},
            }
        },
    }


def kubernetes_namespace() -> Tree:
    """Return a pod and a container in it, as containerd 1.6 keeps them."""
    pod = kept(
        "v1",
        ID=POD,
        Name="p_default_u_0",
        Config={"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "linux": {}},
        NetNSPath="/run/netns/x",
        IP="10.1.2.3",
        AdditionalIPs=["fd00::3"],
        RuntimeHandler="",
        CNIResult={"DNS": None},
    )
    config = {
        "metadata": {"name": "c"},
        "envs": [{"key": "A", "value": "B"}],
        "linux": {"resources": {"cpu_shares": 2}},
        "unknown": 1,
    }
    ours = kept(
        "v1",
        ID=CONTAINER,
        Name="c_p_default_u_0",
        SandboxID=POD,
        Config=config,
        ImageRef=digest(BLOBS[1]),
        LogPath="/logs/c.log",
        StopSignal="SIGINT",
    )
    return {
        "containers": {
            POD: container(
                labels={"io.cri-containerd.kind": b"sandbox"}, extensions={"io.cri-containerd.sandbox.metadata": pod}
            ),
            CONTAINER: container(
                labels={"io.cri-containerd.kind": b"container"},
                extensions={"io.cri-containerd.container.metadata": ours},
            ),
        }
    }


def snapshot(id: int, kind: int, parent: str = "") -> Tree:
    found: Tree = {**TIMES, "id": unsigned(id), "kind": bytes([kind]), "inodes": signed(3), "size": signed(4096)}
    return {**found, "parent": parent.encode()} if parent else found


def snapshots() -> Tree:
    """Return the snapshots of the namespace `default`."""
    return {
        "default/2/sha256:chain": snapshot(1, 3),
        "default/7/c1": snapshot(4, 2, "default/2/sha256:chain"),
    }


class Containerd:
    """The directories of a containerd that has stopped, and of a Windlass that was never started."""

    def __init__(self, scratch: Path, *, version: int = 3, in_place: bool = False) -> None:
        self.source, self.state = scratch / "containerd", scratch / "run-containerd"
        own = (self.source, self.state) if in_place else (scratch / "windlass", scratch / "run-windlass")
        self.places = Places(self.source, self.state, *own, str(scratch / "w.sock"), str(scratch / "w.sock.ttrpc"))
        self.meta: Tree = {"version": signed(version), "default": default_namespace(), "k8s.io": kubernetes_namespace()}
        self.snapshots = snapshots()
        for each in BLOBS:
            self._file(self.source / CONTENT / "blobs" / digest(each).replace(":", "/"), each)
        (self.source / CONTENT / "ingest").mkdir()
        for id in (1, 4):
            self._file(self.source / f"{SNAPSHOTTER}.overlayfs/snapshots/{id}/fs/file", str(id).encode())
        bundle, work = self.state / TASKS / "default/c1", self.source / TASKS / "default/c1"
        self._file(bundle / "address", b"unix:///nowhere")
        work.mkdir(parents=True)
        (bundle / "work").symlink_to(work)
        self._file(self.source / CRI / f"sandboxes/{POD}/hosts", b"127.0.0.1 localhost")
        status = {
            "Version": "v1",
            "Pid": 5,
            "CreatedAt": NOW,
            "StartedAt": NOW + 5,
            "FinishedAt": 0,
            "ExitCode": 0,
            "Reason": "",
            "Message": "",
            "Resources": None,
        }
        self._file(self.source / CRI / f"containers/{CONTAINER}/status", json.dumps(status).encode())
        (self.state / CRI / f"containers/{CONTAINER}/io").mkdir(parents=True)
        for directory in (self.places.root, self.places.state):
            directory.mkdir(exist_ok=True)
        self.write()

    def write(self) -> None:
        """Write the databases."""
        BoltFile(per_page=3).write(self.source / METADATA / META_DB, {"v1": self.meta})
        BoltFile().write(self.overlay, {"v1": {"snapshots": self.snapshots, "parents": {}}})

    @property
    def overlay(self) -> Path:
        """The database of the snapshotter overlayfs."""
        return self.source / f"{SNAPSHOTTER}.overlayfs" / SNAPSHOT_DB

    def listing(self) -> dict[str, str]:
        """Return every file of containerd's, with what is in it."""
        return {str(each): content(each) for top in (self.source, self.state) for each in sorted(top.rglob("*"))}

    @staticmethod
    def _file(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def content(path: Path) -> str:
    """Return what a file is."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
