"""`windlass image`: what each command prints, for people and as JSON, and how it ends."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import CliRunner, Result
from client.conftest import ArchiveFiles, FakeDaemon, digest_of
from images.archives import several

from windlass.contracts.transfer import Stored
from windlass.contracts.values import Descriptor, Platform
from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
from windlass_api.containerd.types.transfer.progress_pb2 import Progress
from windlass_client.cli import main, windlass
from windlass_client.client import Client
from windlass_client.commands import transfers
from windlass_client.store import ClientStore
from windlass_client.transfer import Remote, Transfer
from windlass_images.importer import Options, load

NAME = "example.org/x:1"


class Run(Protocol):
    """Runs `windlass image`, which ends with the given exit code."""

    async def __call__(self, *arguments: object, code: int = 0, input: str | None = None) -> Result: ...


class Put(Protocol):
    """Imports images, unpacked on request."""

    async def __call__(self, *files: ArchiveFiles, unpack: bool = False) -> None: ...


# Any: source and destination, of which each is a remote or a stored image; the tests know which.
Transferred = list[tuple[str, Any, Any]]


@pytest.fixture(autouse=True)
def _amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are about an amd64 machine, wherever they run."""
    monkeypatch.setattr("windlass_images.platforms.host", lambda: Platform("linux", "amd64"))


@pytest.fixture
def run(address: str) -> Run:
    """Run a command in a thread, because the daemon of the test lives in our event loop."""

    async def run(*arguments: object, code: int = 0, input: str | None = None) -> Result:
        words = ["--address", address, "image", *map(str, arguments)]
        done = await asyncio.to_thread(CliRunner().invoke, windlass, words, input, standalone_mode=False)
        ended = getattr(done.exception, "exit_code", 1) if done.exception else done.return_value or 0
        assert ended == code, done.output
        return done

    return run


@pytest.fixture
async def put(client: Client, tmp_path: Path) -> Put:
    """Import images, unpacked if told."""

    async def put(*files: ArchiveFiles, unpack: bool = False) -> None:
        for number, each in enumerate(files):
            path = each.save(tmp_path / f"put-{number}.tar")
            await load(ClientStore(client), path, Options(platform=None, unpack=unpack))

    return put


async def test_import(run: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    """From a file, from a directory, and from standard input; JSON has digests and snapshots."""
    files = several("amd64", "arm64")
    path = files.save(tmp_path / "a.tar")

    done = await run("import", "--platform", "arm64", "--platform", "linux/amd64", "--index-name", "all", path)
    as_json = await run("import", "--all-platforms", "--json", path)
    quiet = await run("import", "-q", "--no-unpack", "--name", "mine", path)

    assert done.stdout.splitlines() == ["imported all", f"imported {NAME}"]
    assert "reading blobs/sha256/" in done.stderr and "unpacking" in done.stderr
    [record] = json.loads(as_json.stdout)
    assert record == {
        "name": NAME,
        "digest": files.target["digest"],
        "snapshots": [digest_of(b"layer of amd64")],
    }
    assert (quiet.stdout, quiet.stderr) == ("mine\n", "")
    assert set(daemon.images) == {"all", NAME, "mine"}


async def test_export(run: Run, put: Put, tmp_path: Path) -> None:
    """To a file that is there only when it is whole, or to standard output."""
    await put(several("amd64", "arm64"))
    path = tmp_path / "out.tar"

    done = await run("export", path, NAME)
    as_json = await run("export", "--json", "--all-platforms", "--skip-manifest-json", path, NAME)
    piped = await run("export", "--platform", "linux/arm64", "-", NAME)
    failed = await run("export", tmp_path / "other.tar", "nope", code=1)

    assert done.stdout.startswith(f"exported {path} (")
    assert "exporting sha256:" in done.stderr
    record = json.loads(as_json.stdout)
    assert record == {"archive": str(path), "images": [NAME], "blobs": 7, "size": path.stat().st_size}
    assert path.stat().st_mode & 0o777 == 0o644
    with tarfile.open(fileobj=io.BytesIO(piped.stdout_bytes)) as tar:
        assert "manifest.json" in tar.getnames()
    assert "nope does not exist" in str(failed.exception)
    assert sorted(each.name for each in tmp_path.iterdir() if "out" in each.name or "export" in each.name) == [
        "out.tar"
    ]
    assert not (tmp_path / "other.tar").exists()


@pytest.mark.parametrize("to", ["gzip", "zstd", "uncompressed", "estargz"])
async def test_convert(run: Run, put: Put, daemon: FakeDaemon, to: str) -> None:
    """The new image has a name of its own; JSON tells which layer became which."""
    with io.BytesIO() as out:
        tarfile.open(fileobj=out, mode="w").close()
        layer = out.getvalue()
    files = ArchiveFiles(layer)
    await put(files)

    done = await run("convert", "--to", to, NAME, "new")
    as_json = json.loads((await run("convert", "--to", to, "--json", NAME, "newer")).stdout)

    assert done.stdout == f"converted new {daemon.images['new'].target.digest}\n"
    assert as_json["name"] == "newer" and as_json["digest"] == daemon.images["new"].target.digest
    assert list(as_json["layers"]) == ([] if to == "gzip" else [files.manifest["layers"][0]["digest"]])


async def test_check(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """What is complete, unpacked, and what it takes; exit code 1 if something is missing."""
    await put(ArchiveFiles(b"one", name="good:1"), unpack=True)
    bad = ArchiveFiles(b"two", name="bad:1")
    await put(bad)

    table = await run("check")
    records = json.loads((await run("check", "--json", "name==good:1")).stdout)
    layer = bad.manifest["layers"][0]["digest"]
    del daemon.blobs[layer]
    names = await run("check", "-q", code=1)
    incomplete = await run("check", "--all-platforms", "name==bad:1", code=1)
    daemon.blobs[bad.target["digest"]] = b"[" * bad.target["size"]
    damaged = json.loads((await run("check", "--json", "name==bad:1", code=1)).stdout)

    lines = {line.split()[0]: line.split() for line in table.stdout.splitlines()}
    assert lines["good:1"][1:3] == ["complete", "3/3"]
    assert "yes" in lines["good:1"] and "no" in lines["bad:1"]
    [record] = records
    size = sum(len(blob) for blob in daemon.blobs.values())
    assert record["usage"]["content"] == record["size"] < size
    assert record["usage"]["snapshots"] == 1000 and record["unpacked"] and record["missing"] == []
    assert names.stdout == "good:1\n"
    assert "incomplete" in incomplete.stdout and "2/3" in incomplete.stdout and layer in incomplete.stdout
    assert damaged[0]["status"] == "damaged" and "JSON" in damaged[0]["error"]


async def test_check_of_an_image_for_another_machine(run: Run, put: Put) -> None:
    """Nothing of it is missing, and nothing of it is of use here; that is no failure."""
    await put(several("arm64"))

    here = json.loads((await run("check", "--json")).stdout)
    there = json.loads((await run("check", "--json", "--platform", "linux/arm64")).stdout)

    assert [each["status"] for each in (*here, *there)] == ["unavailable", "complete"]


async def test_tree(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """From the index down to layers, with sizes, platforms, annotations, what is missing, and what refers to it."""
    files = several("amd64", "arm64", artifact=True)
    files.manifest = json.loads(files.files["blobs/" + files.target["digest"].replace(":", "/")])
    files.manifest["manifests"][0]["annotations"] = {"a\x1b": "b"}
    files.point_to(files.manifest, files.target["mediaType"])
    await put(files)
    statement = json.dumps({"mediaType": "application/x", "artifactType": "application/y"}).encode()
    daemon.blobs[digest_of(statement)] = statement
    label = f"containerd.io/gc.ref.content.referrer.sha256.{digest_of(statement)[7:19]}"
    daemon.labels[files.target["digest"]][label] = digest_of(statement)
    layers = {digest: data for digest, data in daemon.blobs.items() if data.startswith(b"\x1f\x8b")}
    gone = next(digest for digest, data in layers.items() if b"arm64" in gzip.decompress(data))
    del daemon.blobs[gone]

    lines = (await run("tree", NAME)).stdout.splitlines()
    document = json.loads((await run("tree", "--json", NAME)).stdout)
    one = json.loads((await run("tree", "--json", "--platform", "linux/amd64", NAME)).stdout)

    assert lines[0] == NAME
    assert lines[1].startswith(f"└─ index {files.target['digest']} ")
    assert lines[2] == "   │  io.containerd.image.name=example.org/x:1"
    assert lines[3].startswith("   ├─ manifest linux/amd64 sha256:")
    assert lines[4] == "   │  │  a?=b"
    assert sum("─ layer sha256:" in line for line in lines) == 3
    assert any(gone in line and line.endswith("(missing)") for line in lines)
    assert "artifact unknown/unknown" in "".join(lines)
    assert lines[-1].startswith(f"   └─ referrer {digest_of(statement)}") and lines[-1].endswith("application/y")
    assert (document["name"], document["role"], len(document["children"])) == (NAME, "index", 3)
    assert document["children"][0]["platform"] == "linux/amd64"
    assert document["children"][0]["children"][1]["role"] == "layer"
    assert document["referrers"][0]["digest"] == digest_of(statement)
    assert len(one["children"]) == 1


async def test_a_tree_shows_each_branch_once(run: Run, put: Put, daemon: FakeDaemon, client: Client) -> None:
    """Indexes that name the same over and over would otherwise be endless."""
    files = several("amd64")
    await put(files)
    target = {key: files.target[key] for key in ("mediaType", "digest", "size")}
    indexes = []
    for number in range(3):
        index = {"schemaVersion": 2, "manifests": [target], "annotations": {"n": str(number)}}
        data = json.dumps(index).encode()
        daemon.blobs[digest_of(data)] = data
        indexes.append({"mediaType": target["mediaType"], "digest": digest_of(data), "size": len(data)})
    data = json.dumps({"schemaVersion": 2, "manifests": indexes}).encode()
    daemon.blobs[digest_of(data)] = data
    await client.images.put("deep:1", Descriptor(target["mediaType"], digest_of(data), len(data)))

    lines = (await run("tree", "deep:1")).stdout.splitlines()
    document = json.loads((await run("tree", "--json", "deep:1")).stdout)

    assert sum("(as above)" in line for line in lines) == 2
    assert sum("manifest" in line for line in lines) == 1
    repeated = [child["children"][0]["repeated"] for child in document["children"]]
    assert repeated == [False, True, True]


async def test_tag_and_rm(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """Names are completed, and taken away from other images, as docker does both."""
    await put(ArchiveFiles(b"one"), ArchiveFiles(b"two", name="other:1"))

    done = await run("tag", "--json", NAME, "a", "other.org/b:2")
    taken = await run("tag", NAME, "other.org/other:1")
    removed = await run("rm", "--json", "a", "other.org/b:2")
    bad = await run("tag", NAME, "Capital", code=1)

    names = ["docker.io/library/a:latest", "other.org/b:2"]
    assert json.loads(done.stdout) == json.loads(removed.stdout) == [{"name": name} for name in names]
    assert taken.stdout == ""
    assert daemon.images["other.org/other:1"].target == daemon.images[NAME].target
    assert "Capital" in str(bad.exception)


async def test_an_image_in_use_is_not_removed(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """Its last name is not, unless that is meant; others are, and what cannot be does not hinder the rest."""
    await put(ArchiveFiles(b"one"), ArchiveFiles(b"two", name="other.org/x:1"))
    daemon.containers = [Container(id="c", image=NAME)]
    await run("tag", NAME, "second:1")

    assert (await run("rm", "second:1")).stdout == "Untagged: second:1\n"
    refused = await run("rm", NAME, "none:1", "other.org/x:1", code=1)
    assert f"image {NAME} is in use by container c" in refused.stderr
    assert 'image "none:1" does not exist' in refused.stderr
    assert refused.stdout.startswith("Untagged: other.org/x:1\nDeleted: sha256:")
    forced = await run("rm", "-f", NAME)
    assert forced.stdout.startswith(f"Untagged: {NAME}\nDeleted: sha256:")
    assert not daemon.images


async def test_an_id_stands_for_its_image(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """Cut short as far as it is clear, and with all its names."""
    await put(ArchiveFiles(b"one"))
    await run("tag", NAME, "second:1")
    [id] = (await run("ls", "-q")).stdout.split()
    assert len(id) == 12
    assert "does not exist" in str((await run("tag", "abcdefabcdef", "x", code=1)).exception)
    removed = await run("rm", id)
    assert set(removed.stdout.splitlines()[:2]) == {f"Untagged: {NAME}", "Untagged: second:1"}
    assert not daemon.images


async def test_prune(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """What a container was made of stays under all its names, and nothing goes without a yes."""
    await put(ArchiveFiles(b"one"), ArchiveFiles(b"two", name="used:1"), ArchiveFiles(b"two", name="same:1"))
    await put(ArchiveFiles(b"three", name="other:1"))
    daemon.containers = [Container(id="c", image="used:1")]

    refused = await run("prune", "--all", code=1)
    nothing = await run("prune", "--force")
    dry = await run("prune", "--all", "--dry-run")
    some = await run("prune", "--json", "-f", f"name=={NAME}")
    rest = await run("prune", "--all", "--force")

    assert "image prune has been cancelled" in str(refused.exception)
    assert nothing.stdout == "Total reclaimed space: 0B\n"
    assert set(dry.stdout.split()) == {NAME, "other:1"}
    assert json.loads(some.stdout) == [{"name": NAME}]
    assert rest.stdout.startswith("Deleted Images:\nUntagged: other:1\nDeleted: sha256:")
    assert set(daemon.images) == {"used:1", "same:1"}


async def test_images_as_docker_lists_them(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """Repository and tag apart, by patterns and filters, in any form."""
    await put(ArchiveFiles(b"one", name="docker.io/library/busy:1"), ArchiveFiles(b"two", name="other.org:5000/a/b:2"))

    table = (await run("ls")).stdout.splitlines()
    names = await run("ls", "--format", "{{.Repository}}:{{.Tag}}")
    some = await run("ls", "--format", "{{.Repository}}", "bus*")
    other = await run("ls", "--filter", "reference=*/a/b:2", "--digests", "--format", "{{.Digest}}")
    none = await run("ls", "-q", "--filter", "dangling=true")
    bad = await run("ls", "--filter", "size=1", code=1)

    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert set(names.stdout.split()) == {"busy:1", "other.org:5000/a/b:2"}
    assert some.stdout == "busy\n"
    assert other.stdout == f"{daemon.images['other.org:5000/a/b:2'].target.digest}\n"
    assert none.stdout == ""
    assert "filter 'size' is not known" in str(bad.exception)


async def test_history_and_inspect(run: Run, put: Put, daemon: FakeDaemon) -> None:
    """By a short name; an image that says nothing of its making has a step for each layer."""
    await put(ArchiveFiles(b"one", name="docker.io/library/busy:latest"))

    history = (await run("history", "busy")).stdout.splitlines()
    [document] = json.loads((await run("inspect", "busy")).stdout)
    os = await run("inspect", "--format", "{{.Os}} {{index .RepoTags 0}}", "busy")
    missing = await run("inspect", "busy", "none", code=1)

    assert history[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert history[1].startswith(document["Id"].removeprefix("sha256:")[:12])
    assert document["RootFS"]["Layers"] and document["RepoTags"] == ["busy:latest"]
    assert os.stdout == "linux busy:latest\n"
    assert len(json.loads(missing.stdout)) == 1 and 'image "none" does not exist' in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "--platform", "linux/amd64", "--all-platforms", "x"], "exclude each other"),
        (["export", "--json", "-", "x"], "both want standard output"),
        (["convert", "--to", "xz", "a", "b"], "'xz' is not one of"),
        (["mount", "x"], "windlass image mount IMAGE DIRECTORY"),
        (["pull", "--password-stdin", "x"], "needs --user"),
        (["pull", "--user", "a:b", "--password-stdin", "x"], "exclude each other"),
    ],
)
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Exit code 2, and what would be right."""
    assert main(["--address", "/nonexistent/d.sock", "image", *arguments]) == 2
    assert message in capfd.readouterr().err


@pytest.fixture
def transferred(monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> Transferred:
    """Stands in for the transfers of a daemon: remembers them, and a pull makes an image."""
    seen: Transferred = []

    async def pull(self: Transfer, source: Remote, destination: Stored, report: Callable[[Progress], None]) -> None:
        seen.append((self._connection.lease, source, destination))
        for done in (0, 50, 50, 100):
            report(Progress(event="downloading", name="layer-sha256:1", progress=done, total=100))
        report(Progress(event="Completed pull from example.org"))
        client = Client.__new__(Client)
        client.connection = self._connection
        await client.images.put(destination.name, Descriptor("t", digest_of(b""), 1))

    async def push(self: Transfer, source: Stored, destination: Remote, report: object = None) -> None:
        seen.append((self._connection.lease, source, destination))

    monkeypatch.setattr(Transfer, "pull", pull)
    monkeypatch.setattr(Transfer, "push", push)
    return seen


async def test_pull(run: Run, transferred: Transferred, daemon: FakeDaemon) -> None:
    """The daemon is told platforms, snapshotter and labels; each thing that it says is shown once."""
    done = await run("pull", "--platform", "linux/arm64", "-l", "a=b", "--plain-http", "--hosts-dir", "/etc/x", NAME)
    as_json = await run("pull", "--all-platforms", "--no-unpack", "--json", "--anonymous", NAME)
    await run("pull", "-q", "--user", "me:pw", NAME)

    lease, source, stored = transferred[0]
    assert lease and (source.reference, source.plain_http, source.host_dir) == (NAME, True, "/etc/x")
    assert source.ask is transfers._from_docker
    assert [each.architecture for each in stored.platforms] == ["arm64"] and stored.labels == {"a": "b"}
    assert [(each.platform.architecture, each.snapshotter) for each in stored.unpacks] == [("arm64", "overlayfs")]
    assert done.stdout == f"pulled {NAME} {digest_of(b'')}\n"
    assert done.stderr.splitlines() == ["downloading layer-sha256:1 (100 B)", "Completed pull from example.org"]
    assert json.loads(as_json.stdout) == {"name": NAME, "digest": digest_of(b""), "type": "t"}
    assert transferred[1][1].ask is None and not transferred[1][2].platforms and not transferred[1][2].unpacks
    given = await transferred[2][1].ask("example.org", NAME)
    assert (given.username, given.secret) == ("me", "pw") and "pw" not in repr(given)
    assert not daemon.leased


async def test_push(
    run: Run, put: Put, transferred: Transferred, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own name or another; passwords come from a pipe or are asked for."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    await put(ArchiveFiles(b"one"))

    done = await run("push", NAME)
    as_json = await run("push", "--json", "--user", "me", "--password-stdin", "example.org/y:2", NAME, input="s3cret\n")
    asked = await run("push", "--user", "me", NAME, input="typed\n")
    missing = await run("push", "nope", code=1)

    digest = json.loads(as_json.stdout)["digest"]
    assert done.stdout == f"pushed {NAME} {digest}\n"
    assert json.loads(as_json.stdout) == {"name": NAME, "remote": "example.org/y:2", "digest": digest}
    assert [(source.name, remote.reference) for _, source, remote in transferred[:2]] == [
        (NAME, NAME),
        (NAME, "example.org/y:2"),
    ]
    assert (await transferred[1][2].ask("example.org", "r")).secret == "s3cret"
    assert (await transferred[2][2].ask("example.org", "r")).secret == "typed"
    assert await transferred[2][2].ask("mirror.example.org", "r") is None
    assert "typed" not in asked.output and "s3cret" not in as_json.output
    assert "nope does not exist" in str(missing.exception)
    assert len(transferred) == 3


def test_every_command_of_the_group_is_there() -> None:
    """And each of them explains itself."""
    from windlass_client.commands.images import COMMANDS

    for name in COMMANDS:
        shown = CliRunner().invoke(windlass, ["image", name, "--help"])
        assert shown.exit_code == 0, name
        structured = any(word in shown.output for word in ("--json", "--format", "COMMAND"))
        assert structured or name in ("save", "load", "build"), name
