"""Steps that every writer of blobs needs, in a thread: open an ingest, commit it or label the blob, give it up."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from windlass.contracts.content import ContentStore, Info, Writer
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, NotFound, OutOfRange, Unavailable
from windlass_images.turns import Locked


def opened(content: ContentStore, ref: str, size: int, expected: str, media_type: str = "") -> Writer:
    """Open an ingest. Raises AlreadyExists if the blob is there, Locked if another client writes it."""
    try:
        return content.writer(ref, size, expected, media_type)
    except Unavailable as error:
        raise Locked(str(error)) from None


def commit_or_label(content: ContentStore, writer: Writer, desc: Descriptor, labels: Mapping[str, str]) -> None:
    """Make an ingest a blob; a blob that came meanwhile by another way gets the labels."""
    try:
        writer.commit(desc.size, desc.digest, labels)
    except AlreadyExists:
        if labels:
            content.update(Info(desc.digest, labels=labels), [f"labels.{key}" for key in labels])


def abort(content: ContentStore, ref: str) -> None:
    """Give an ingest up, unless it has gone or another client writes it."""
    try:
        content.abort(ref)
    except (NotFound, Unavailable):
        pass


def close_and_abort(content: ContentStore, writer: Writer, ref: str) -> None:
    """Give up an ingest that is open."""
    writer.close()
    abort(content, ref)


def save(content: ContentStore, data: bytes, media_type: str, prefix: str) -> Descriptor:
    """Store ``data`` as a blob; one that is there already is as good. ``prefix`` begins the ingest's ref."""
    ref = f"{prefix}-{secrets.token_hex(16)}"
    writer = content.writer(ref, media_type=media_type)
    try:
        writer.write(data)
        desc = Descriptor(media_type, writer.digest(), len(data))
        commit_or_label(content, writer, desc, {})
    except BaseException:
        close_and_abort(content, writer, ref)
        raise
    return desc


def read(content: ContentStore, digest: str, limit: int) -> bytes:
    """Return a whole blob. Raises NotFound, OutOfRange when it is longer than ``limit`` bytes."""
    reader = content.reader(Descriptor("", digest, 0))
    try:
        if reader.size > limit:
            raise OutOfRange(f"blob {digest} has {reader.size} bytes, {limit} are the limit")
        return reader.read_at(0, reader.size)
    finally:
        reader.close()


def head(content: ContentStore, digest: str, size: int) -> bytes:
    """Return the first ``size`` bytes of a blob, fewer of a shorter one. Raises NotFound."""
    reader = content.reader(Descriptor("", digest, 0))
    try:
        return reader.read_at(0, min(size, reader.size))
    finally:
        reader.close()
