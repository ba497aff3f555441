"""OCI image archives made entry by entry, good ones and such as nobody means well with."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any  # JSON

from windlass_conformance.boxes import BUSYBOX

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **fields: Any) -> bytes:
    """Return one member, header and data; Any: whatever TarInfo has."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    padding = -len(data) % 512
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(padding)


def layer(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(1024)


def busybox_layer() -> bytes:
    directories = [entry(name, tarfile.DIRTYPE) for name in ("bin", "dev", "proc", "sys", "tmp", "etc")]
    links = [entry(f"bin/{name}", tarfile.SYMTYPE, "busybox") for name in ("sh", "true", "sleep", "cat", "echo")]
    return layer(*directories, entry("bin/busybox", data=BUSYBOX.read_bytes()), *links)


def archive(
    name: str, layers: Sequence[bytes], media_type: str = LAYER, diff_ids: Sequence[str] | None = None
) -> bytes:
    """Return an OCI archive of an image; ``layers`` are blobs as stored."""
    ids = diff_ids or [digest(gzip.decompress(blob) if media_type.endswith("gzip") else blob) for blob in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]}}
    blobs = [json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": ids}}).encode(), *layers]

    def descriptor(blob: bytes, media: str) -> dict[str, Any]:
        return {"mediaType": media, "digest": digest(blob), "size": len(blob)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(blobs[0], CONFIG),
            "layers": [descriptor(blob, media_type) for blob in layers],
        }
    ).encode()
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "manifests": [{**descriptor(manifest, MANIFEST), "annotations": names}]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    files |= {f"blobs/sha256/{digest(blob)[7:]}": blob for blob in (*blobs, manifest)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
