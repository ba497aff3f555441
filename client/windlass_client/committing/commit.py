"""Makes an image of a container: its image's layers, and one more with what the container has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from windlass.contracts.diff import LABEL_UNCOMPRESSED
from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, NotFound
from windlass_client.committing import instructions
from windlass_client.committing.diffing import layer
from windlass_client.freezing import frozen
from windlass_client.store import ClientStore
from windlass_images import platforms
from windlass_images.imagetree import Leaf, keep_labels, resolve
from windlass_images.layouts import write_document
from windlass_images.manifests import CONFIG, MANIFEST, MANIFEST_LIMIT, parse_object, to_json
from windlass_oci.payloads import read_spec

if TYPE_CHECKING:
    from windlass_api.containerd.services.containers.v1.containers_pb2 import Container
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Spec

SESSION = ("TERM=", "HOSTNAME=", "HOME=")
"""Variables that belong to the container and not to its image."""


@dataclass(frozen=True)
class Wanted:
    """What `commit` is asked for."""

    name: str
    author: str = ""
    message: str = ""
    changes: Sequence[str] = ()
    pause: bool = True


async def commit(client: Client, container: Container, wanted: Wanted) -> Descriptor:
    """Make an image and return the descriptor of its config, whose digest is the image's ID. Raises NotFound."""
    async with client.lease(label="commit") as leased:
        store = ClientStore(leased)
        base, document = await _base(store, container)
        config = _execution(document, read_spec(container.id, container.spec.value))
        for change in wanted.changes:
            instructions.apply(config, change)
        async with frozen(client, container.id, wanted.pause):
            made = await layer(leased, container, "+gzip")
        diff_id = await _diff_id(store, made)
        _extend(document, config, diff_id, wanted)
        target = await write_document(store, _bytes(document), CONFIG)
        layers = [*base.manifest.filesystem, made]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": to_json(target, {}),
            "layers": [to_json(each, each.annotations) for each in layers],
        }
        written = await write_document(store, _bytes(manifest), MANIFEST, keep_labels([target, *layers]))
        await store.images.put(wanted.name, written)
        return target


async def _base(store: ClientStore, container: Container) -> tuple[Leaf, dict[str, object]]:
    """Return the image of a container for this machine, and its config's document."""
    try:
        leaf = await resolve(store, container.image, platforms.host())
    except NotFound:
        raise FailedPrecondition(
            f"image {container.image or '(none)'} of container {container.id} is not here; pull it again, as its "
            "layers are the new image's"
        ) from None
    data = await store.content.read(leaf.manifest.config.digest, MANIFEST_LIMIT)
    return leaf, parse_object(data, f"config {leaf.manifest.config.digest}")


def _execution(document: dict[str, object], spec: Spec) -> instructions.Config:
    """Return how the new image is executed: as its image, with what `run` was told."""
    old = document.get("config")
    config: instructions.Config = dict(old) if isinstance(old, dict) else {}
    process = spec["process"]
    args, entrypoint = list(process.get("args") or []), config.get("Entrypoint") or []
    if isinstance(entrypoint, list) and args[: len(entrypoint)] == entrypoint:
        config["Cmd"] = args[len(entrypoint) :]
    else:
        config["Entrypoint"], config["Cmd"] = None, args
    config["Env"] = [each for each in process.get("env") or [] if not each.startswith(SESSION)]
    config["WorkingDir"] = process.get("cwd") or "/"
    return config


def _extend(document: dict[str, object], config: instructions.Config, diff_id: str, wanted: Wanted) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    document["created"], document["config"] = now, config
    if wanted.author:
        document["author"] = wanted.author
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") or [] if isinstance(rootfs, dict) else []
    document["rootfs"] = {"type": "layers", "diff_ids": [*diff_ids, diff_id]}
    command = config.get("Cmd")
    entry = {"created": now, "created_by": " ".join(command) if isinstance(command, list) else ""}
    if wanted.author:
        entry["author"] = wanted.author
    if wanted.message:
        entry["comment"] = wanted.message
    history = document.get("history")
    document["history"] = [*(history if isinstance(history, list) else []), entry]


async def _diff_id(store: ClientStore, made: Descriptor) -> str:
    """Return the digest of a layer as it is unpacked, which the differ has noted."""
    found = (await store.content.info(made.digest)).labels.get(LABEL_UNCOMPRESSED, "")
    if not found:
        raise FailedPrecondition(f"the daemon's differ does not say what layer {made.digest} is when it is unpacked")
    return found


def _bytes(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
