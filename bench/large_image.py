"""Builds an image as large as those that people pull: 20,000 files of 600 MB in four layers, the same every time.

Sizes are those of an operating system's tree, many small and few large ones, and half of the bytes compress as
text does. There are directories, links of both kinds, owners, odd modes, capabilities, attributes, times in
nanoseconds, whiteouts and an opaque directory.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = 20_000
BYTES = 600_000_000
SHARES = (0.5, 0.25, 0.15, 0.1)
"""Of each layer in both."""
PER_DIRECTORY = 14
POOL = 8 << 20
LARGEST = 24 << 20
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
KIND = "application/vnd.oci.image"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """One layer, plain and packed."""

    plain: Path
    packed: Path
    diff_id: str


class Bytes:
    """Contents for files, cut from two pools."""

    def __init__(self, source: random.Random) -> None:
        words = [source.randbytes(source.randint(1, 5)).hex() for _ in range(4096)]
        self._text = " ".join(source.choices(words, k=POOL // 5)).encode()[:POOL]
        self._noise = source.randbytes(POOL)
        self._source = source

    def cut(self, size: int) -> bytes:
        """Return ``size`` bytes, of text or of noise."""
        pool = self._text if self._source.random() < 0.7 else self._noise
        start = self._source.randrange(POOL)
        return (pool[start:] + pool * (size // POOL + 1))[:size]


def sizes(source: random.Random, count: int, total: int) -> list[int]:
    """Return sizes with a long tail that come to about ``total``."""
    raw = [source.lognormvariate(0, 2.2) for _ in range(count)]
    scale = total / sum(raw)
    return [min(int(value * scale), LARGEST) for value in raw]


def members(number: int, files: int, size: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the members of a layer."""
    source = random.Random(number)
    contents = Bytes(source)
    part = f"usr/part-{number}"
    yield directory("usr", number), b""
    yield directory(part, number), b""
    last = tarfile.TarInfo()
    for index, length in enumerate(sizes(source, files, size)):
        outer, inner = divmod(index // PER_DIRECTORY, 20)
        if index % (PER_DIRECTORY * 20) == 0:
            yield directory(f"{part}/{outer}", number), b""
        if index % PER_DIRECTORY == 0:
            yield directory(f"{part}/{outer}/{inner}", number), b""
        name = f"{part}/{outer}/{inner}/file-{index:05}-{source.randbytes(source.randint(2, 30)).hex()}"
        entry = described(tarfile.TarInfo(name), source, index)
        if index % 100 == 50:
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, f"../file-{index}", 0o777
        elif index % 100 == 51:
            entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE, last.name, last.mode
            entry.uid, entry.gid, entry.mtime, entry.pax_headers = last.uid, last.gid, last.mtime, last.pax_headers
        else:
            entry.size, last = length, entry
        yield entry, contents.cut(entry.size)
    if number:
        yield from deletions(number)


def deletions(number: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield what takes things of the lowest layer away."""
    yield directory("usr/part-0", number), b""
    for hidden in ("1/.wh.3", f"{number + 1}/4/.wh..wh..opq"):
        parents = hidden.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            yield directory("/".join(["usr/part-0", *parents[:depth]]), number), b""
        yield tarfile.TarInfo(f"usr/part-0/{hidden}"), b""


def directory(name: str, number: int) -> tarfile.TarInfo:
    """Return a directory's entry."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000 + number
    return entry


def described(entry: tarfile.TarInfo, source: random.Random, index: int) -> tarfile.TarInfo:
    """Give a file mode, owner, time and, some, attributes."""
    entry.mode = 0o4755 if index % 500 == 1 else source.choice((0o644, 0o644, 0o755, 0o600))
    entry.uid, entry.gid = (1000, 1000) if index % 10 == 3 else (0, 0)
    entry.mtime = 1_500_000_000 + source.randrange(10**8)
    records: dict[str, str] = {}
    if index % 4 == 0:
        records["mtime"] = f"{entry.mtime}.{source.randrange(10**9):09}"
    if index % 200 == 7:
        records["SCHILY.xattr.user.bench"] = f"value {index}"
    if index % 1000 == 9:
        # latin-1 and surrogates are how tarfile passes bytes on
        records["SCHILY.xattr.security.capability"] = CAPABILITY.decode("utf-8", "surrogateescape")
    entry.pax_headers = records
    return entry


def layer(place: Path, number: int) -> Layer:
    """Write a layer below ``place``."""
    share = SHARES[number]
    plain, packed = place / f"layer-{number}.tar", place / f"layer-{number}.tar.gz"
    if not (place / "image.tar").exists():
        with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry, data in members(number, int(FILES * share), int(BYTES * share)):
                tar.addfile(entry, io.BytesIO(data))
        with plain.open("rb") as source, packed.open("wb") as sink, gzip.GzipFile("", "wb", 6, sink, mtime=0) as zipped:
            shutil.copyfileobj(source, zipped, 1 << 20)
    with plain.open("rb") as source:
        return Layer(plain, packed, f"sha256:{hashlib.file_digest(source, 'sha256').hexdigest()}")


def build(place: Path, name: str) -> tuple[Path, list[Layer]]:
    """Write layers and an archive of the image to ``place``, unless they are there, and return both."""
    archive = place / "image.tar"
    layers = [layer(place, number) for number in range(len(SHARES))]
    if archive.exists():
        return archive, layers
    blobs: dict[str, Path] = {}

    def described_blob(path: Path, media_type: str, **more: object) -> dict[str, object]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        blobs[digest] = path
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": path.stat().st_size, **more}

    def document(value: object, stem: str) -> Path:
        path = place / f"{stem}.json"
        path.write_text(json.dumps(value))
        return path

    machine = os.uname().machine
    platform = {"os": "linux", "architecture": MACHINES.get(machine, machine)}
    config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{KIND}.manifest.v1+json",
        "config": described_blob(document(config, "config"), f"{KIND}.config.v1+json"),
        "layers": [described_blob(each.packed, f"{KIND}.layer.v1.tar+gzip") for each in layers],
    }
    names = {"annotations": {"io.containerd.image.name": name}, "platform": platform}
    target = described_blob(document(manifest, "manifest"), f"{KIND}.manifest.v1+json", **names)
    with tarfile.open(archive, "w") as tar:
        for path in (
            document({"imageLayoutVersion": "1.0.0"}, "oci-layout"),
            document({"schemaVersion": 2, "manifests": [target]}, "index"),
        ):
            tar.add(path, "oci-layout" if path.stem == "oci-layout" else "index.json")
        for digest, path in blobs.items():
            tar.add(path, f"blobs/sha256/{digest}")
    return archive, layers
