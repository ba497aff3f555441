"""Archives and other tools: what `skopeo`, `ctr` and docker write we import, and they read what we export."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import Archive, digest_of, layer
from compat.machines import Machine
from snapshot_erofs.conftest import missing

WINDLASS = "import sys; from windlass_client.cli import main; sys.exit(main())"
NAME = "docker.io/library/thing:1"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed; apt install skopeo"),
]


@pytest.fixture
def image(tmp_path: Path) -> Archive:
    """An image of two layers that nobody has seen."""
    first = layer({"etc/motd": os.urandom(64), "bin/x": b"#!/bin/sh\n"}, ("etc", "bin"), {"bin/y": "x"})
    return Archive(tmp_path / "thing.tar", NAME, [first, layer({"second": os.urandom(64)})])


def windlass(machine: Machine, *arguments: str | Path, code: int = 0, data: bytes = b"") -> bytes:
    """Run the command line against a machine and return what it prints."""
    done = run_windlass(machine, *arguments, data=data)
    assert done.returncode == code, (arguments, done.stderr.decode())
    return done.stdout


def run_windlass(machine: Machine, *arguments: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line against a machine, however it ends."""
    command = [sys.executable, "-c", WINDLASS, "--address", machine.address, "--namespace", machine.namespace, "image"]
    return subprocess.run([*command, *map(str, arguments)], input=data, capture_output=True, timeout=60)


def skopeo(tmp_path: Path, *arguments: str) -> bytes:
    """Run skopeo with nothing of the machine's configuration."""
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command = ["skopeo", "--policy", str(policy), "--tmpdir", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, (arguments, done.stderr.decode())
    return done.stdout


@pytest.fixture
def stored(machine: Machine, image: Archive) -> Iterator[Machine]:
    """A machine that has the image, and afterwards nothing that a test has named."""
    windlass(machine, "import", image.path)
    yield machine
    names = [name for name in machine.ctr("images", "ls", "-q").split() if "busy" not in name]
    windlass(machine, "rm", *names)


def plain_layers(directory: Path) -> list[str]:
    """Return the digests of the uncompressed layers of an OCI layout with one image."""
    index = json.loads((directory / "index.json").read_text())
    manifest = json.loads((directory / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    config = json.loads((directory / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    return list(config["rootfs"]["diff_ids"])


def test_skopeo_reads_what_we_export(stored: Machine, image: Archive, tmp_path: Path) -> None:
    """As an OCI archive by its tag, and as a docker archive, without a change."""
    out = tmp_path / "out.tar"
    windlass(stored, "export", out, NAME)

    inspected = json.loads(skopeo(tmp_path, "inspect", f"oci-archive:{out}:1"))
    skopeo(tmp_path, "copy", f"oci-archive:{out}:1", f"oci:{tmp_path}/oci:1")
    skopeo(tmp_path, "copy", f"docker-archive:{out}:thing:1", f"oci:{tmp_path}/docker:1")

    assert inspected["Digest"] == image.digest
    assert inspected["Layers"] == image.layers
    assert plain_layers(tmp_path / "oci") == plain_layers(tmp_path / "docker") == image.diff_ids


@pytest.mark.parametrize("form", ["uncompressed", "zstd", "estargz", "gzip"])
def test_skopeo_reads_what_we_convert(stored: Machine, tmp_path: Path, form: str) -> None:
    """Whatever the layers' form: skopeo checks every digest, and the diff IDs when it unpacks to docker's form."""
    windlass(stored, "convert", "--to", form, NAME, "example.org/converted:2")
    out = tmp_path / "out.tar"
    windlass(stored, "export", out, "example.org/converted:2")
    if form == "zstd":
        # skopeo 1.9 does not unpack it
        skopeo(tmp_path, "copy", f"oci-archive:{out}:2", f"oci:{tmp_path}/oci:1")
        return

    skopeo(tmp_path, "copy", f"oci-archive:{out}:2", f"docker-archive:{tmp_path}/docker.tar:x:1")

    [entry] = json.loads(tarfile_of(tmp_path / "docker.tar", "manifest.json"))
    config = json.loads(tarfile_of(tmp_path / "docker.tar", entry["Config"]))
    layers = [digest_of(tarfile_of(tmp_path / "docker.tar", name)) for name in entry["Layers"]]
    assert layers == config["rootfs"]["diff_ids"]


def tarfile_of(path: Path, name: str) -> bytes:
    """Return a file of an archive."""
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


@pytest.mark.parametrize("form", ["zstd", "estargz"])
def test_a_converted_image_is_unpacked_to_the_same_files(stored: Machine, tmp_path: Path, form: str) -> None:
    """By the daemon's own differ, which checks the diff IDs; `ctr` shows what it then has."""
    if form == "zstd" and stored.kind == "containerd":
        pytest.skip("containerd 1.6 runs an external zstd")
    windlass(stored, "convert", "--to", form, NAME, "example.org/converted:2")
    target = tmp_path / "root"
    target.mkdir()
    windlass(stored, "mount", "example.org/converted:2", target)
    try:
        names = sorted(name for name in os.listdir(target) if "landmark" not in name and name != "stargz.index.json")
        assert names == ["bin", "etc", "second"]
        assert (target / "bin" / "y").readlink() == Path("x")
    finally:
        windlass(stored, "unmount", target)


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_what_skopeo_writes_we_import(machine: Machine, image: Archive, tmp_path: Path, form: str) -> None:
    """OCI archive, docker archive, and a layout in a directory."""
    name = "docker.io/library/copied:3"
    skopeo(tmp_path, "copy", f"oci-archive:{image.path}", f"{form}:{tmp_path}/copy:{name}")

    [found] = json.loads(windlass(machine, "import", "--json", tmp_path / "copy"))
    check = json.loads(windlass(machine, "check", "--json", f"name=={name}"))
    windlass(machine, "rm", name)

    assert found["name"] == name
    assert found["snapshots"] == [image.chain_ids[-1]]
    assert (check[0]["status"], check[0]["unpacked"]) == ("complete", True)


def test_what_ctr_exports_we_import_and_the_other_way(stored: Machine, image: Archive, tmp_path: Path) -> None:
    """The digest stays in both directions; a stream does as well as a file."""
    theirs, ours = tmp_path / "theirs.tar", tmp_path / "ours.tar"
    stored.ctr("images", "export", str(theirs), NAME)
    windlass(stored, "export", ours, NAME)
    windlass(stored, "rm", NAME)

    [found] = json.loads(windlass(stored, "import", "--json", "-", data=theirs.read_bytes()))
    windlass(stored, "rm", NAME)
    stored.ctr("images", "import", str(ours))
    words = stored.rows("images", "ls")[NAME]

    assert found["digest"] == words[2] == image.digest
    with tarfile.open(theirs) as first, tarfile.open(ours) as second:
        assert sorted(first.getnames()) == sorted(second.getnames())


def docker_save(layers: list[bytes], tag: str) -> bytes:
    """Return an archive as docker before 25 writes it: a directory for each layer, links between equal ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(data), kind, link
            tar.addfile(entry, io.BytesIO(data))

        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/x"]},
            "container_config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in layers]},
        }
        paths, seen = [], dict[bytes, str]()
        for number, data in enumerate(layers):
            directory = hashlib.sha256(str(number).encode()).hexdigest()
            add(directory, kind=tarfile.DIRTYPE)
            add(f"{directory}/VERSION", b"1.0")
            add(f"{directory}/json", json.dumps({"id": directory}).encode())
            if data in seen:
                add(f"{directory}/layer.tar", kind=tarfile.SYMTYPE, link=f"../{seen[data]}/layer.tar")
            else:
                add(f"{directory}/layer.tar", data)
            seen.setdefault(data, directory)
            paths.append(f"{directory}/layer.tar")
        raw = json.dumps(config).encode()
        name = f"{digest_of(raw)[7:]}.json"
        add(name, raw)
        add("manifest.json", json.dumps([{"Config": name, "RepoTags": [tag], "Layers": paths}]).encode())
        add("repositories", json.dumps({tag.partition(":")[0]: {tag.partition(":")[2]: directory}}).encode())
    return out.getvalue()


def test_what_docker_saved_before_25(machine: Machine) -> None:
    """Links between equal layers are followed; the image can be mounted, so its layers are what they should be."""
    first, second = layer({"a": os.urandom(64)}), layer({"b": b"b"})

    [found] = json.loads(windlass(machine, "import", "--json", "-", data=docker_save([first, second, first], "old:1")))
    windlass(machine, "rm", found["name"])

    assert found["name"] == "docker.io/library/old:1"
    assert len(found["snapshots"]) == 1


def test_what_docker_saves_since_25(machine: Machine, image: Archive, tmp_path: Path) -> None:
    """An OCI layout that has manifest.json and repositories beside it; the layout is what counts."""
    with tarfile.open(image.path) as tar:
        index = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr] # it is a file
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "1"
    names = {"index.json": json.dumps(index).encode(), "repositories": b"{}"}
    names["manifest.json"] = json.dumps(
        [
            {
                "Config": f"blobs/{image.config.replace(':', '/')}",
                "RepoTags": ["thing:1"],
                "Layers": [f"blobs/{digest.replace(':', '/')}" for digest in image.layers],
            }
        ]
    ).encode()
    path = tmp_path / "docker25.tar"
    blobs = {f"blobs/{digest.replace(':', '/')}": data for digest, data in image.blobs.items()}
    path.write_bytes(layer({**blobs, **names, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}))

    [found] = json.loads(windlass(machine, "import", "--json", path))
    windlass(machine, "rm", found["name"])

    assert (found["name"], found["digest"]) == (NAME, image.digest)


def mounts_at(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path} " in line]


def resources(machine: Machine) -> tuple[set[str], set[str]]:
    """Return leases and snapshots."""
    snapshots = machine.ctr("snapshots", "ls").splitlines()[1:]
    return set(machine.ctr("leases", "ls", "-q").split()), {line.split()[0] for line in snapshots}


def test_mount_and_unmount(stored: Machine, tmp_path: Path) -> None:
    """The root is there read-only, is listed, survives that its image goes, and leaves nothing when it is unmounted."""
    target = tmp_path / "root"
    target.mkdir()
    before = resources(stored)

    windlass(stored, "mount", NAME, target)
    listed = json.loads(windlass(stored, "mount", "--json"))
    windlass(stored, "mount", NAME, target, code=1)
    windlass(stored, "tag", NAME, "docker.io/library/kept:1")
    windlass(stored, "rm", NAME)
    assert (target / "second").exists()
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").write_text("")
    gone = json.loads(windlass(stored, "unmount", "--json", target))
    windlass(stored, "unmount", target, code=1)

    assert listed == gone == [{"image": NAME, "directory": str(target)}]
    assert not mounts_at(target) and not os.listdir(target)
    assert resources(stored) == before


def options_at(path: Path) -> set[str]:
    [line] = mounts_at(path)
    return set(line.split()[5].split(","))


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("writable", [[], ["--rw"]], ids=["ro", "rw"])
def test_a_mounted_image_makes_nobody_root(
    stored: Machine, tmp_path: Path, snapshotter: str, writable: list[str]
) -> None:
    """Set-user-ID programs and device files of an image do nothing on the host, unless somebody asks for it."""
    target = tmp_path / "root"
    target.mkdir()

    windlass(stored, "mount", "--snapshotter", snapshotter, *writable, NAME, target)
    assert {"nosuid", "nodev"} <= options_at(target)
    windlass(stored, "unmount", target)
    windlass(stored, "mount", "--snapshotter", snapshotter, *writable, "--suid", "--dev", NAME, target)
    assert not {"nosuid", "nodev"} & options_at(target)
    windlass(stored, "unmount", target)


def test_a_mount_that_others_can_reach_is_warned_of(stored: Machine) -> None:
    """Others can read what the image has; below a directory that only root enters they cannot."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        target = Path(place, "root")
        target.mkdir()
        private = run_windlass(stored, "mount", NAME, target)
        windlass(stored, "unmount", target)
        Path(place).chmod(0o755)
        public = run_windlass(stored, "mount", NAME, target)
        windlass(stored, "unmount", target)

    assert (private.returncode, public.returncode) == (0, 0)
    assert b"warning" not in private.stderr
    assert f"warning: other users can read the image at {target}".encode() in public.stderr


@pytest.mark.parametrize("snapshotter", ["native", "erofs"])
def test_a_mount_of_another_snapshotter(stored: Machine, tmp_path: Path, snapshotter: str) -> None:
    """Also where the daemon has to make mounts before the last one; they are gone with it."""
    if stored.kind == "containerd" and snapshotter == "erofs":
        pytest.skip("containerd 1.6 has no snapshotter erofs")
    if snapshotter == "erofs" and (why := missing()):
        pytest.skip(why)
    target = tmp_path / "root"
    target.mkdir()
    before = resources(stored)

    windlass(stored, "mount", "--snapshotter", snapshotter, NAME, target)
    assert (target / "bin" / "y").readlink() == Path("x") and (target / "second").exists()
    windlass(stored, "unmount", target)

    table = Path("/proc/self/mountinfo").read_text()
    assert not [line for line in table.splitlines() if str(tmp_path) in line or f"{stored.directory}/state" in line]
    assert resources(stored) == before


def test_a_mount_that_is_written_to(stored: Machine, tmp_path: Path) -> None:
    """What is written is gone with it, and the image is as it was."""
    target = tmp_path / "root"
    target.mkdir()
    before = resources(stored)

    windlass(stored, "mount", "--rw", NAME, target)
    (target / "new").write_text("new")
    windlass(stored, "unmount", target)
    windlass(stored, "mount", NAME, target)
    assert not (target / "new").exists()
    windlass(stored, "unmount", target)

    assert resources(stored) == before


def test_a_mount_that_fails_leaves_nothing(stored: Machine, tmp_path: Path) -> None:
    """No such directory, one that is not empty, no such image, no such snapshotter."""
    target = tmp_path / "root"
    before = resources(stored)

    windlass(stored, "mount", NAME, target, code=1)
    target.mkdir()
    windlass(stored, "mount", "docker.io/library/nope:1", target, code=1)
    windlass(stored, "mount", "--snapshotter", "nope", NAME, target, code=1)
    (target / "file").write_text("")
    windlass(stored, "mount", NAME, target, code=1)
    (target / "file").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(target)], check=True)
    try:
        windlass(stored, "mount", NAME, target, code=1)
        windlass(stored, "unmount", target, code=1)
        assert len(mounts_at(target)) == 1
    finally:
        subprocess.run(["umount", str(target)], check=True)

    assert not mounts_at(target)
    assert resources(stored) == before
