"""Hostile manifests through both command lines: refused on one line that says why, and nothing stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client.conftest import KIND, ArchiveFiles, digest_of
from compat.conftest import require_foreign_tools
from compat.images import MACHINE
from compat.machines import Machine, Result

WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
INDEX, MANIFEST = f"{KIND}.index.v1+json", f"{KIND}.manifest.v1+json"
HUGE = 100 << 20
MANY = 10_000
RSS_LIMIT = 160 << 20
LINE_LIMIT = 2000

Spoil = Callable[[ArchiveFiles], None]


def index_of(*targets: dict[str, object]) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(targets)}


def manifest(**fields: object) -> Spoil:
    """Change fields of the manifest."""
    return lambda files: files.point_to({**files.manifest, **fields})


def claimed(files: ArchiveFiles, name: str, target: str) -> dict[str, object]:
    """Add an index under a digest that it does not have, with a reference to ``target``; return its descriptor."""
    data = json.dumps(index_of({"mediaType": INDEX, "digest": target, "size": 300})).ljust(300).encode()
    files.files["blobs/" + name.replace(":", "/")] = data
    return {"mediaType": INDEX, "digest": name, "size": len(data)}


def loop_of_one(files: ArchiveFiles) -> None:
    own = digest_of(b"own")
    files.target.update(claimed(files, own, own))


def loop_of_two(files: ArchiveFiles) -> None:
    one, two = digest_of(b"one"), digest_of(b"two")
    claimed(files, two, one)
    files.target.update(claimed(files, one, two))


def nested(files: ArchiveFiles) -> None:
    target: dict[str, object] = {key: files.target[key] for key in ("mediaType", "digest", "size")}
    for _ in range(50):
        target = files.blob(json.dumps(index_of(target)).encode(), INDEX)
    files.target.update(target)


def many_missing(files: ArchiveFiles) -> None:
    gone = [{"mediaType": MANIFEST, "digest": digest_of(b"%d" % number), "size": 500} for number in range(MANY)]
    files.point_to(index_of(*gone), INDEX)


def wrong_size(files: ArchiveFiles) -> None:
    files.target["size"] += 1


def wrong_digest(files: ArchiveFiles) -> None:
    name = "blobs/" + files.target["digest"].replace(":", "/")
    files.files[name] = files.files[name].replace(b'"schemaVersion": 2', b'"schemaVersion": 3')


def huge_index(files: ArchiveFiles) -> None:
    files.files["index.json"] = bytes(HUGE)


SPOILED: dict[str, tuple[Spoil, str]] = {
    "not JSON": (lambda files: files.point_to(b"this is not JSON"), "not JSON"),
    "100 MB": (lambda files: files.point_to(b"{" + bytes(HUGE)), "limit"),
    "index.json of 100 MB": (huge_index, "limit"),
    "points to itself": (loop_of_one, "digest"),
    "loop of two": (loop_of_two, "digest"),
    "wrong size": (wrong_size, "bytes"),
    "wrong digest": (wrong_digest, "digest"),
    "10,000 missing manifests": (many_missing, "is missing"),
    "50 indexes deep": (nested, "nested"),
    "JSON 100,000 deep": (lambda files: files.point_to(b"[" * 100_000 + b"]" * 100_000), "nested"),
    "a list": (lambda files: files.point_to([]), "not an object"),
    "no config": (manifest(config=None), "config"),
    "layers that are none": (manifest(layers=[None, 1, "x"]), "layers"),
    "negative size": (manifest(config={"mediaType": f"{KIND}.config.v1+json", "digest": "sha256:x", "size": -1}), ""),
    "index and manifest": (manifest(manifests=[]), "both"),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One daemon for all: it has to stand them one after the other."""
    require_foreign_tools()
    machine = Machine("windlass", tmp_path_factory.mktemp("m"))
    try:
        machine.start()
        yield machine
    finally:
        machine.close()


def load(machine: Machine, tool: str, path: str) -> Result:
    """Import an archive with one of the two tools."""
    if tool == "ctr":
        return machine.try_ctr("images", "import", path)
    command = [*WINDLASS, "-a", machine.address, "-n", machine.namespace, "image", "import", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def rss(pid: int) -> int:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@pytest.mark.parametrize("tool", ["windlass", "ctr"])
@pytest.mark.parametrize("name", SPOILED)
def test_what_cannot_be_right_is_refused(machine: Machine, tmp_path: Path, tool: str, name: str) -> None:
    """Nothing of it is left but what the next collection takes, and the daemon is as small as before."""
    spoil, message = SPOILED[name]
    files = ArchiveFiles(platform={"os": "linux", "architecture": MACHINE})
    spoil(files)
    pid = machine.pid

    done = load(machine, tool, files.save(tmp_path / "bad.tar"))

    assert done.returncode == 1, done
    complaint = [line for line in done.stderr.splitlines() if line.startswith(f"{tool}: ")]
    assert len(complaint) == 1, done.stderr
    assert len(complaint[0]) < LINE_LIMIT
    assert "Traceback" not in done.stderr
    if tool == "windlass":
        assert message in complaint[0]
    assert machine.ctr("leases", "ls", "-q") == ""
    machine.collect_garbage()
    for image in machine.ctr("images", "ls", "-q").split():
        assert tool == "ctr"  # it names an image before it looks at it
        machine.ctr("images", "rm", "--sync", image)
    assert machine.ctr("content", "ls", "-q") == ""
    assert machine.ctr("content", "active").splitlines()[1:] == []
    assert not list((machine.root / "io.containerd.content.v1.content/ingest").iterdir())
    assert not machine.rows("snapshots", "ls")
    assert Path(f"/proc/{pid}").exists()
    assert rss(pid) < RSS_LIMIT
