"""Builds OCI archives from the machine's static busybox: no network, no container tool."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from windlass_conformance.boxes import BUSYBOX

OCI = "application/vnd.oci.image"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
APPLETS = [
    "sh",
    "cat",
    "echo",
    "sleep",
    "true",
    "false",
    "id",
    "hostname",
    "ls",
    "kill",
    "env",
    "stty",
    "head",
    "wc",
    "yes",
    "ps",
    "trap",
    "sha256sum",
    "touch",
    "readlink",
]
FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}


def digest_of(data: bytes) -> str:
    """Return the digest that a content store gives to ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: Mapping[str, bytes], directories: Sequence[str] = (), links: Mapping[str, str] | None = None) -> bytes:
    """Return an uncompressed layer; every file may be executed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return out.getvalue()


def busybox_layer() -> bytes:
    """Return the layer that is enough to run a shell."""
    links = {f"bin/{applet}": "busybox" for applet in APPLETS}
    files = {"bin/busybox": BUSYBOX.read_bytes(), **FILES}
    return layer(files, ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "run"), links)


class Archive:
    """An OCI archive on disk with one image in it."""

    def __init__(
        self,
        path: Path,
        name: str,
        layers: Sequence[bytes],
        seal: Callable[[bytes], bytes] | None = None,
        **execution: object,
    ) -> None:
        """``seal`` encrypts the layers; ``execution`` are further fields of the image's ``config``."""
        self.path = path
        self.name = name
        self.blobs: dict[str, bytes] = {}
        self.diff_ids = [digest_of(each) for each in layers]
        kind = "layer.v1.tar+gzip" + ("+encrypted" if seal else "")
        packed = [gzip.compress(each, mtime=0) for each in layers]
        descriptors = [self._blob(seal(each) if seal else each, kind) for each in packed]
        self.layers = [str(each["digest"]) for each in descriptors]
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        config = {
            "architecture": MACHINE,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], **execution},
            "rootfs": rootfs,
        }
        described = self._blob(json.dumps(config).encode(), "config.v1+json")
        self.config = str(described["digest"])
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": described,
            "layers": descriptors,
        }
        target = self._blob(json.dumps(manifest).encode(), "manifest.v1+json")
        self.digest = str(target["digest"])
        target["annotations"] = {"io.containerd.image.name": name}
        target["platform"] = {"os": "linux", "architecture": MACHINE}
        self._write(json.dumps({"schemaVersion": 2, "manifests": [target]}).encode())

    @property
    def chain_ids(self) -> list[str]:
        """The names that the unpacked layers have as snapshots, lowest first."""
        chain = [self.diff_ids[0]]
        for diff_id in self.diff_ids[1:]:
            chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()))
        return chain

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(data)}

    def _write(self, index: bytes) -> None:
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        files |= {f"blobs/{digest.replace(':', '/')}": data for digest, data in self.blobs.items()}
        self.path.write_bytes(layer(files))
