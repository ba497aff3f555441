"""What containerd's `meta.db` holds, of versions 1.6 to 2.x (docs/containerd 3.15)."""

from __future__ import annotations

from collections.abc import Iterator

from windlass.contracts.containers import Container
from windlass.contracts.content import Info
from windlass.contracts.images import Image
from windlass.contracts.leases import Lease, Resource
from windlass.contracts.namespaces import Namespace
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.snapshots import Kind
from windlass.contracts.values import Descriptor, Payload, check_digest, check_identifier
from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_adopt.bolt import Bolt, Bucket
from windlass_adopt.golang import moment, payload, payloads, signed, strings
from windlass_metadata.restoring import Contents, Snapshot

SCHEMA = "v1"
NEWEST = 4
"""The version that containerd 2.4 writes; 1.6 writes 3."""
LEASED = ("content", "images", "ingests")


def read(bolt: Bolt) -> list[Contents]:
    """Return all that is kept, by namespace; the kinds of snapshots are not known here.

    Raises DataLoss for a damaged file, FailedPrecondition for one of a newer containerd.
    """
    root = bolt.root
    top = root.find(SCHEMA)
    if top is None:
        others = [root.decoded(name) for name in root.names()]
        if others:
            raise FailedPrecondition(
                f"{bolt.path} has no bucket {SCHEMA} but {', '.join(others)[:128]}; it is not known"
            )
        return []
    version = signed(top, "version")
    if version > NEWEST:
        raise FailedPrecondition(
            f"{bolt.path} has schema version {version}, known are those up to {NEWEST}; install a newer Windlass"
        )
    return [_namespace(bolt, name, bucket) for name, bucket in top.each()]


def version(bolt: Bolt) -> int:
    """Return the version of the schema."""
    top = bolt.root.find(SCHEMA)
    return 0 if top is None else signed(top, "version")


def _namespace(bolt: Bolt, name: str, bucket: Bucket) -> Contents:
    _check(bucket, "namespace", name)
    contents = Contents(Namespace(name, strings(bucket, "labels")))
    contents.images = [_image(key, each) for key, each in bucket.each("images")]
    contents.containers = [_container(key, each) for key, each in bucket.each("containers")]
    sandboxes = dict(bucket.each("sandboxes"))
    # containerd 1.7 kept them beside the schema, which its successors move (8.3).
    sandboxes = {**dict(bolt.root.each(name, "sandboxes")), **sandboxes} if name != SCHEMA else sandboxes
    contents.sandboxes = [_sandbox(key, each) for key, each in sandboxes.items()]
    contents.blobs = [_blob(key, each) for key, each in bucket.each("content", "blob")]
    for snapshotter, within in bucket.each("snapshots"):
        contents.snapshots += [_snapshot(snapshotter, key, each) for key, each in within.each()]
    contents.leases = [_lease(key, each) for key, each in bucket.each("leases")]
    return contents


def _image(name: str, bucket: Bucket) -> Image:
    target = bucket.find("target")
    if target is None:
        raise bucket.wrong("the image has no target")
    _check_digest(target, target.text("digest"))
    descriptor = Descriptor(
        target.text("mediatype"), target.text("digest"), signed(target, "size"), strings(bucket, "annotations")
    )
    return Image(name, descriptor, strings(bucket, "labels"), moment(bucket, "createdat"), moment(bucket, "updatedat"))


def _container(id: str, bucket: Bucket) -> Container:
    _check(bucket, "container", id)
    runtime, options = _runtime(bucket)
    return Container(
        id,
        runtime=runtime,
        runtime_options=options,
        spec=payload(bucket, "spec"),
        labels=strings(bucket, "labels"),
        image=bucket.text("image"),
        snapshotter=bucket.text("snapshotter"),
        snapshot_key=bucket.text("snapshotKey"),
        extensions=payloads(bucket, "extensions"),
        sandbox=bucket.text("sandboxid"),
        created_at=moment(bucket, "createdat"),
        updated_at=moment(bucket, "updatedat"),
    )


def _sandbox(id: str, bucket: Bucket) -> Sandbox:
    _check(bucket, "sandbox", id)
    runtime, options = _runtime(bucket)
    return Sandbox(
        id,
        runtime=runtime,
        runtime_options=options,
        spec=payload(bucket, "spec"),
        labels=strings(bucket, "labels"),
        extensions=payloads(bucket, "extensions"),
        sandboxer=bucket.text("sandboxer"),
        created_at=moment(bucket, "createdat"),
        updated_at=moment(bucket, "updatedat"),
    )


def _runtime(bucket: Bucket) -> tuple[str, Payload | None]:
    runtime = bucket.find("runtime")
    return ("", None) if runtime is None else (runtime.text("name"), payload(runtime, "options"))


def _blob(digest: str, bucket: Bucket) -> Info:
    _check_digest(bucket, digest)
    return Info(
        digest,
        signed(bucket, "size"),
        moment(bucket, "createdat"),
        moment(bucket, "updatedat"),
        strings(bucket, "labels"),
    )


def _snapshot(snapshotter: str, key: str, bucket: Bucket) -> Snapshot:
    return Snapshot(
        snapshotter,
        key,
        bucket.text("name"),
        Kind.COMMITTED,
        bucket.text("parent"),
        strings(bucket, "labels"),
        moment(bucket, "createdat"),
        moment(bucket, "updatedat"),
    )


def _lease(id: str, bucket: Bucket) -> tuple[Lease, list[Resource]]:
    return Lease(id, strings(bucket, "labels"), moment(bucket, "createdat")), list(_resources(bucket))


def _resources(bucket: Bucket) -> Iterator[Resource]:
    for kind in LEASED:
        held = bucket.find(kind)
        for name in (*held.values, *held.names()) if held is not None else ():
            yield Resource(bucket.decoded(name), kind)
    for snapshotter, held in bucket.each("snapshots"):
        for name in (*held.values, *held.names()):
            yield Resource(bucket.decoded(name), f"snapshots/{snapshotter}")


def _check(bucket: Bucket, what: str, name: str) -> None:
    """Raise DataLoss for a name that would lead out of a directory."""
    try:
        check_identifier(what, name)
    except InvalidArgument as error:
        raise bucket.wrong(str(error)) from None


def _check_digest(bucket: Bucket, digest: str) -> None:
    try:
        check_digest(digest)
    except InvalidArgument as error:
        raise bucket.wrong(str(error)) from None
