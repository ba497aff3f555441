"""The differ for layers that are EROFS images: they are put in their place as they are.

Source: docs/containerd 2.2, "Differs".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from windlass.contracts.content import ContentStore, Reader
from windlass.contracts.diff import CompareOptions, Differ
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import InvalidArgument, Unimplemented
from windlass.typing import override
from windlass_snapshot_erofs.images import place, problem_of
from windlass_snapshot_erofs.layers import CONVERTED, IMAGE, MARK, directory_of

TYPES = ("application/vnd.erofs", "application/vnd.erofs.layer.v1")
SUFFIX = ".erofs"
CHUNK = 1 << 20
MAX_WINDOW = 128 << 20
"""Of zstd, the library's own limit: what a frame may make the decompressor allocate."""


class ErofsDiffer(Differ):
    """Applies EROFS images."""

    @override
    def apply(
        self,
        content: ContentStore,
        desc: Descriptor,
        mounts: Sequence[Mount],
        payloads: Mapping[str, Payload] | None = None,
        sync_fs: bool = False,
    ) -> Descriptor:
        """Make the blob the image of the snapshot that ``mounts`` show; it is always durable.

        Raises Unimplemented for other layers and for mounts of other snapshotters.
        """
        kind, compressed = image_type(desc.media_type)
        directory = directory_of(mounts)
        if directory is None or not (directory / MARK).exists():
            raise Unimplemented(f"layer {desc.digest} is an EROFS image, which only snapshots of erofs can take")
        copy = _Copy(content, desc, compressed)
        place(directory / IMAGE, copy.write)
        (directory / CONVERTED).unlink(missing_ok=True)
        return Descriptor(kind, f"sha256:{copy.hash.hexdigest()}", copy.size)

    @override
    def compare(
        self, content: ContentStore, lower: Sequence[Mount], upper: Sequence[Mount], options: CompareOptions
    ) -> Descriptor:
        raise Unimplemented("this differ makes no layers; list walking after it")


def image_type(media_type: str) -> tuple[str, bool]:
    """Return an image's media type without compression, and whether it is compressed. Raises Unimplemented."""
    kind, plus, compression = media_type.partition("+")
    if (kind not in TYPES and not kind.endswith(SUFFIX)) or (plus and compression != "zstd"):
        raise Unimplemented(f"media type {media_type[:200]!r} is not an EROFS image; list another differ too")
    return kind, bool(plus)


class _Copy:
    """Writes a blob to a file and tells what it was, decompressed."""

    def __init__(self, content: ContentStore, desc: Descriptor, compressed: bool) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._content = content
        self._desc = desc
        self._compressed = compressed

    def write(self, path: Path) -> None:
        import zstandard  # for layers alone: it costs every start

        reader = self._content.reader(self._desc)
        try:
            with path.open("xb") as file:
                self._copy(_Whole(reader), file)
        except zstandard.ZstdError as error:
            raise InvalidArgument(f"layer {self._desc.digest} is damaged: {error}") from error
        finally:
            reader.close()
        if problem := problem_of(path):
            raise InvalidArgument(
                f"layer {self._desc.digest} is not an EROFS image, though its type says so: {problem}"
            )

    def _copy(self, blob: _Whole, file: IO[bytes]) -> None:
        import zstandard

        source: IO[bytes] | zstandard.ZstdDecompressionReader = cast("IO[bytes]", blob)  # read() is all that is called
        if self._compressed:
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            source = decompressor.stream_reader(cast("IO[bytes]", blob), read_across_frames=True)
        while chunk := source.read(CHUNK):
            self.hash.update(chunk)
            self.size += len(chunk)
            file.write(chunk)


class _Whole:
    """Reads a blob from its start to its end."""

    def __init__(self, blob: Reader) -> None:
        self._blob = blob
        self._offset = 0

    def read(self, size: int) -> bytes:
        data = self._blob.read_at(self._offset, size)
        self._offset += len(data)
        return data
