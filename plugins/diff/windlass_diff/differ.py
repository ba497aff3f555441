"""The differ: applies and makes layers, each in a worker process forked from the zygote."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

from windlass.contracts.activations import MountManager
from windlass.contracts.content import ContentStore, Info, Writer
from windlass.contracts.diff import (
    DETACHED,
    LABEL_UNCOMPRESSED,
    LAYER,
    LAYER_GZIP,
    LAYER_ZSTD,
    CompareOptions,
    StreamProcessor,
)
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.contracts.zygote import Zygote
from windlass.errors import AlreadyExists, NotFound, Unavailable, Unimplemented
from windlass_diff.activated import ForDiffs
from windlass_diff.chain import chain, rows
from windlass_diff.job import Job
from windlass_storage.disks import private_directory

MADE = {LAYER: "", LAYER_GZIP: "gzip", LAYER_ZSTD: "zstd"}
"""Media types that compare can make, with their compression."""


class WalkingDiffer:
    """Implements `windlass.contracts.diff.Differ`."""

    def __init__(
        self,
        zygote: Zygote,
        directory: Path,
        patience: float,
        mount_manager: MountManager | None = None,
        processors: Mapping[str, StreamProcessor] | None = None,
    ) -> None:
        """Work with ``directory`` as the place that workers mount on; ``patience`` is seconds without progress.

        ``mount_manager`` is for mounts that a worker cannot make alone, ``processors`` for layers that it cannot read.
        """
        self._zygote = zygote
        self._active = ForDiffs(mount_manager)
        self._directory = directory
        self._patience = patience
        self._processors = dict(processors or {})
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._closed = False
        private_directory(directory)

    def apply(
        self,
        content: ContentStore,
        desc: Descriptor,
        mounts: Sequence[Mount],
        payloads: Mapping[str, Payload] | None = None,
        sync_fs: bool = False,
    ) -> Descriptor:
        """Apply a layer; see the contract. ``payloads`` are for stream processors, by their ID, but for DETACHED."""
        steps, compressed = chain(desc.media_type, self._processors)
        programs, given = rows(steps, payloads or {})
        settings = {
            "directory": str(self._directory),
            "compressed": compressed,
            "processors": programs,
            "sync": sync_fs,
            "detached": DETACHED in (payloads or {}),
        }
        with ExitStack() as stack:
            reader = stack.enter_context(closing(content.reader(desc)))
            descriptors = [reader.fileno(), *(stack.enter_context(_file(data)).fileno() for data in given)]
            request = {**settings, "mounts": _rows(stack.enter_context(self._active.mounts(mounts)))}
            subject = f"layer {desc.digest}"
            job = stack.enter_context(self._job("windlass_diff.worker:apply", subject, request, descriptors))
            result = job.result(self._patience)
        return Descriptor(LAYER, result["digest"], result["size"])

    def compare(
        self, content: ContentStore, lower: Sequence[Mount], upper: Sequence[Mount], options: CompareOptions
    ) -> Descriptor:
        """Make a layer; see the contract."""
        media_type = options.media_type or LAYER_GZIP
        if media_type not in MADE:
            raise Unimplemented(f"media type {media_type[:200]!r} is not a layer that this differ can make")
        ref = options.ref or f"windlass-diff-{secrets.token_hex(16)}"
        request = {
            "directory": str(self._directory),
            "compression": MADE[media_type],
            "epoch": options.source_date_epoch,
        }
        writer = content.writer(ref, media_type=media_type)
        try:
            if writer.status().offset:
                writer.truncate(0)
            with self._active.mounts(lower) as plain_lower, self._active.mounts(upper) as plain_upper:
                sides = {"lower": _rows(plain_lower), "upper": _rows(plain_upper)}
                result = self._write({**request, **sides}, writer, f"diff {ref}")
            labels = {**options.labels}
            if MADE[media_type]:
                labels[LABEL_UNCOMPRESSED] = result["digest"]
            desc = Descriptor(media_type, writer.digest(), writer.status().offset)
            _commit(content, writer, desc, labels)
        except BaseException:
            writer.close()
            _forget(content, ref)
            raise
        return desc

    def close(self) -> None:
        """Stop all workers and take no further calls."""
        with self._lock:
            self._closed = True
            for job in self._jobs:
                job.kill()

    # Any: the request is JSON.
    def _write(self, request: dict[str, Any], writer: Writer, subject: str) -> dict[str, Any]:
        ours, theirs = os.pipe()
        with ExitStack() as stack:
            stack.callback(os.close, ours)
            try:
                job = stack.enter_context(self._job("windlass_diff.worker:compare", subject, request, [theirs]))
            finally:
                os.close(theirs)
            return job.result(self._patience, ours, writer.write)

    @contextmanager
    def _job(self, entry: str, subject: str, request: dict[str, Any], descriptors: Sequence[int]) -> Iterator[Job]:
        job = Job(self._zygote, entry, subject, request, descriptors)
        try:
            with self._lock:
                if self._closed:
                    raise Unavailable(f"{subject}: the differ is stopping")
                self._jobs.add(job)
            yield job
        finally:
            with self._lock:
                self._jobs.discard(job)
            job.close()


def _file(data: bytes) -> IO[bytes]:
    """Return a file in memory, to be read from its start."""
    file = os.fdopen(os.memfd_create("payload"), "w+b")
    file.write(data)
    file.seek(0)
    return file


def _rows(mounts: Sequence[Mount]) -> list[list[str]]:
    return [[mount.type, mount.source, mount.target, *mount.options] for mount in mounts]


def _commit(content: ContentStore, writer: Writer, desc: Descriptor, labels: Mapping[str, str]) -> None:
    try:
        writer.commit(desc.size, desc.digest, labels)
    except AlreadyExists:
        content.update(Info(desc.digest, labels=labels), [f"labels.{key}" for key in labels])


def _forget(content: ContentStore, ref: str) -> None:
    try:
        content.abort(ref)
    except (NotFound, Unavailable):
        pass
