"""Compressed streams: recognised by their first bytes, and written so that the same input gives the same output."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO, Protocol

from windlass.errors import InvalidArgument

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = 0x184D2A5
"""Magic number of zstd's skippable frames without its lowest four bits; pzstd begins with one (RFC 8878, 3.1.2)."""
XZ = b"\xfd7zXZ\x00"
BZIP2 = b"BZh"
WINDOW_LIMIT = 512 << 20
"""Memory that a zstd frame may ask for, as much as containerd allows."""
BUFFER = 256 << 10
GZIP_LEVEL = 6
ZSTD_LEVEL = 3


def is_zstd(magic: bytes) -> bool:
    """Return whether these four bytes begin a frame of zstd, skippable ones included."""
    return magic == ZSTD or int.from_bytes(magic, "little") >> 4 == SKIPPABLE


class Compressor(Protocol):
    """Compresses data, part by part."""

    def compress(self, data: bytes) -> bytes:
        """Return the compressed data that was not returned before."""
        ...

    def flush(self) -> bytes:
        """Return the rest."""
        ...


def decompressed(file: IO[bytes] | io.RawIOBase) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """Return a reader of a file that may be compressed, and the errors that it raises for damaged data."""
    buffered = io.BufferedReader(file, BUFFER)  # type: ignore[type-var] # typeshed wants a RawIOBase; any readable will do
    magic = buffered.peek(6)[:6]
    if magic.startswith(GZIP):
        damage = (EOFError, zlib.error, gzip.BadGzipFile)
        return gzip.GzipFile(fileobj=buffered), damage  # type: ignore[return-value] # IO[bytes] in all that readers need
    if is_zstd(magic[:4]):
        import zstandard

        frames = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
        return frames.stream_reader(buffered, read_across_frames=True), (zstandard.ZstdError,)
    if magic.startswith((XZ, BZIP2)):
        raise InvalidArgument("it is compressed with xz or bzip2; images are plain, gzip or zstd")
    return buffered, ()


def why(error: Exception) -> str:
    """Return the rest of a message, after the file's name, for ``error`` that reading it raised."""
    if "too much memory" in str(error):  # as the library says it
        return f"needs more memory than the {WINDOW_LIMIT >> 20} MiB that a zstd frame may ask for; pack it anew"
    return f"is damaged: {str(error)[:200]}"


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def plain() -> Compressor:
    """Return a compressor that leaves the bytes as they are."""
    return _Plain()


def gzipped() -> Compressor:
    """Return a compressor for one gzip member without name and time."""
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)


def zstandardized() -> Compressor:
    """Return a compressor for one zstd frame."""
    import zstandard

    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
