"""Looking at images: what is below a name, bounded whatever it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from client.conftest import KIND, ArchiveFiles, FakeDaemon, Json, digest_of
from images.archives import Sender, saved, several

from windlass.contracts.images import Image
from windlass.contracts.values import Descriptor, Platform
from windlass.errors import Error, NotFound
from windlass_client.store import ClientStore
from windlass_images import importer, upkeep
from windlass_images.survey import missing, survey

NAME = "example.org/x:1"
INDEX = f"{KIND}.index.v1+json"
AMD64 = Platform("linux", "amd64")


class Put(Protocol):
    """Imports an image; its name then points to the given document, if there is one."""

    async def __call__(self, files: ArchiveFiles, document: Json | bytes | None = None) -> None: ...


@pytest.fixture
def put(store: ClientStore, daemon: FakeDaemon, tmp_path: Path) -> Put:
    """Import an image, and then have its name point to what a test wants to look at."""

    async def put(files: ArchiveFiles, document: Json | bytes | None = None) -> None:
        await importer.load(store, Sender(saved(files, tmp_path)), importer.Options(platform=None, unpack=False))
        if document is not None:
            target = blob(daemon, document)
            await store.images.put(NAME, Descriptor(target["mediaType"], target["digest"], target["size"]))

    return put


def blob(daemon: FakeDaemon, document: Json | bytes, media_type: str = INDEX) -> Json:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    daemon.blobs[digest_of(data)] = data
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def index(*targets: Json) -> Json:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(targets)}


def plain(target: Json) -> Json:
    return {key: target[key] for key in ("mediaType", "digest", "size")}


async def test_an_index_that_says_nothing_of_platforms(store: ClientStore, daemon: FakeDaemon, put: Put) -> None:
    """The configs are asked; an artifact is not for any machine, what is not there may be for all."""
    files = several("amd64", "arm64", artifact=True)
    manifests = json.loads(files.files["blobs/" + files.target["digest"].replace(":", "/")])["manifests"]
    absent = {"mediaType": f"{KIND}.manifest.v1+json", "digest": digest_of(b"absent"), "size": 6}
    nested = blob(daemon, index(plain(manifests[1])))
    await put(files, index(*map(plain, manifests), absent, nested))

    root = await survey(store, NAME, AMD64)
    everything = await survey(store, NAME)

    assert [child.target.digest for child in root.children] == [manifests[0]["digest"], absent["digest"]]
    assert [node.target.digest for node in missing([everything])] == [absent["digest"]]
    assert [child.role for child in everything.children] == ["manifest", "manifest", "artifact", "manifest", "index"]
    assert len(everything.images()) == 3


async def test_a_missing_config_and_a_missing_root(store: ClientStore, daemon: FakeDaemon, put: Put) -> None:
    """Without its config a manifest is still one of an image; without the root there is nothing to see."""
    files = ArchiveFiles(b"one")
    await put(files)
    del daemon.blobs[files.manifest["config"]["digest"]]
    node = await survey(store, NAME)
    del daemon.blobs[files.target["digest"]]
    gone = await survey(store, NAME)

    assert (node.role, node.image, len(node.children)) == ("manifest", None, 2)
    assert (gone.role, gone.present, gone.children) == ("manifest", False, ())
    with pytest.raises(NotFound, match="image nope does not exist"):
        await survey(store, "nope")


async def test_a_referrer_that_is_gone(store: ClientStore, daemon: FakeDaemon, put: Put) -> None:
    """It is named all the same."""
    files = ArchiveFiles(b"one")
    await put(files)
    label = "containerd.io/gc.ref.content.referrer.sha256.1"
    daemon.labels[files.target["digest"]] |= {label: digest_of(b"gone"), f"{label}2": "not a digest"}

    assert (await survey(store, NAME)).referrers == (Descriptor("", digest_of(b"gone"), 0),)


def deep(daemon: FakeDaemon) -> Json:
    target = blob(daemon, index())
    for _ in range(6):
        target = blob(daemon, index(target))
    return index(target)


HUGE = {"mediaType": INDEX, "digest": digest_of(bytes(5 << 20)), "size": 5 << 20}

BAD: dict[str, tuple[Callable[[FakeDaemon], Json | bytes], str]] = {
    "indexes in indexes": (deep, "lies below more than 4 nested indexes"),
    "a size that is not the blob's": (lambda daemon: index(blob(daemon, b"x") | {"size": 2}), "has 1 bytes"),
    "more blobs than anybody has": (
        lambda daemon: index(*({**HUGE, "digest": digest_of(str(number).encode())} for number in range(20))),
        "has more than 10 blobs",
    ),
    "a document of 5 MB": (lambda daemon: index(blob(daemon, bytes(5 << 20))), "the limit is 4194304"),
    "what is no image": (lambda daemon: b"{", "is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_refused(
    store: ClientStore, daemon: FakeDaemon, put: Put, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """One line that names the image; and whoever checks all images is told by the same line, and goes on."""
    monkeypatch.setattr("windlass_images.survey.NODES_LIMIT", 10)
    make, message = BAD[case]
    await put(ArchiveFiles(b"one"), make(daemon))

    with pytest.raises(Error, match=rf"image {NAME}.*{message}") as caught:
        await survey(store, NAME)
    condition = await upkeep.check(store, await store.images.get(NAME), "overlayfs")

    assert "\n" not in str(caught.value)
    assert (condition.status, condition.error) == ("damaged", str(caught.value))


async def test_what_points_to_no_manifest(store: ClientStore) -> None:
    """A name may point to anything; what it is called says that it is no image."""
    await store.images.put(NAME, Descriptor("text/plain", digest_of(b""), 0))
    with pytest.raises(Error, match=r"points to media type 'text/plain', neither a manifest nor an index"):
        await survey(store, NAME)


async def test_prune_when_somebody_else_is_quicker(
    store: ClientStore, daemon: FakeDaemon, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is gone already is not counted, and no error."""
    await put(ArchiveFiles(b"one"))
    await put(ArchiveFiles(b"two", name="other:1"))
    listed = store.images.list

    async def list_and_lose(*filters: str) -> Sequence[Image]:
        found = await listed(*filters)
        del daemon.images["other:1"]
        return found

    monkeypatch.setattr(store.images, "list", list_and_lose)
    assert await upkeep.prune(store, set()) == [NAME]
