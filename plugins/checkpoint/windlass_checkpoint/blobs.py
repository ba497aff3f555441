"""Checkpoints in the content store: packed from a directory that criu has written, unpacked into another.

The differ does both, in a process of its own: a checkpoint is a layer without anything below it, and is unpacked inside
a chroot.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Never, ParamSpec, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage

from windlass.contracts.checkpoints import CHECKPOINT, CONFIG, Checkpoints
from windlass.contracts.containers import Container
from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LAYER, CompareOptions, Differ
from windlass.contracts.metadata import Metadata
from windlass.contracts.mounts import Mount
from windlass.contracts.tasks import CreateOptions, Status, Tasks
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import Error, ResourceExhausted
from windlass.gate import offload, offloaded
from windlass.typing import override
from windlass_checkpoint.scratch import Scratch, refuse_strange
from windlass_local import blobs

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

PREFIX = "windlass-checkpoint"
"""Begins the refs of ingests."""


class BlobCheckpoints(Checkpoints):
    """Checkpoints as two blobs: the packed directory, and the container's spec."""

    def __init__(self, tasks: Tasks, metadata: Metadata, differ: Differ, scratch: Scratch) -> None:
        """Have ``tasks`` write and read the directories in ``scratch``."""
        self._tasks = tasks
        self._metadata = metadata
        self._differ = differ
        self._scratch = scratch
        self._jobs: set[asyncio.Task[object]] = set()

    @override
    async def save(
        self, namespace: str, lease: str, container: Container, options: Payload | None
    ) -> tuple[Descriptor, ...]:
        content = self._metadata.content(namespace, lease)
        return await self._to_the_end(self._save(namespace, content, container, options))

    @override
    async def restore(
        self, namespace: str, container: Container, options: CreateOptions, checkpoint: Descriptor
    ) -> int:
        if checkpoint.media_type != CHECKPOINT:
            raise Error(
                f"checkpoint of type {checkpoint.media_type[:200]!r} cannot be restored; the type known is {CHECKPOINT}"
            )
        content = self._metadata.content(namespace)
        await offload(content.info, checkpoint.digest)
        return await self._to_the_end(self._restore(namespace, content, container, options, checkpoint))

    async def stop(self, timeout: float) -> None:
        """Wait for jobs under way, and cancel those that are left after ``timeout`` seconds."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=timeout)
        for job in tuple(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _save(
        self, namespace: str, content: ContentStore, container: Container, options: Payload | None
    ) -> tuple[Descriptor, ...]:
        directory = await self._on_disk(self._scratch.make)
        try:
            await self._tasks.checkpoint(namespace, container.id, str(directory), options)
            try:
                packed = await offloaded(_pack, deadline=None)(self._differ, content, directory)
                return packed, await self._save_spec(content, container)
            except Error as error:
                await self._rescue(namespace, container.id, directory, error)
                raise
        finally:
            await self._on_disk(self._scratch.remove, directory)

    async def _save_spec(self, content: ContentStore, container: Container) -> Descriptor:
        spec = container.spec or Payload("", b"")
        data = AnyMessage(type_url=spec.type_url, value=spec.value).SerializeToString(deterministic=True)
        return await offloaded(blobs.save, deadline=None)(content, data, CONFIG, PREFIX)

    async def _rescue(self, namespace: str, id: str, directory: Path, error: Error) -> None:
        """Keep a checkpoint that cannot be packed, if its task has ended: raise ``error`` with the directory's path.

        A task that runs on can be checkpointed again, so nothing is kept of it.
        """
        try:
            process = await self._tasks.get(namespace, id)
            if process.status in (Status.RUNNING, Status.PAUSED, Status.PAUSING):
                return
        except Error:
            logger.info("task %s has gone with its checkpoint", id)
        kept = await self._on_disk(self._scratch.keep, directory, namespace, id)
        raise type(error)(f"{error}; the task has ended, its checkpoint is kept in {kept}") from error

    async def _restore(
        self,
        namespace: str,
        content: ContentStore,
        container: Container,
        options: CreateOptions,
        checkpoint: Descriptor,
    ) -> int:
        directory = await self._on_disk(self._scratch.make)
        try:
            await offloaded(_unpack, deadline=None)(self._differ, content, checkpoint, directory)
            options = dataclasses.replace(options, checkpoint=str(directory), owns_checkpoint=True)
            return await self._tasks.create(namespace, container, options)
        finally:
            await self._on_disk(self._scratch.remove, directory)

    async def _on_disk(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await offloaded(function, deadline=None)(*args, **kwargs)
        except OSError as error:
            raise ResourceExhausted(f"directory for a checkpoint cannot be made or removed: {error}") from error

    async def _to_the_end(self, work: Coroutine[object, Never, R]) -> R:
        """Do ``work``, even if the client that waits for it goes away."""
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._ended)
        return await asyncio.shield(job)

    def _ended(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and isinstance(error := job.exception(), Error):
            # The waiting client gets the error too; if it has gone, this is the only place.
            logger.info("checkpoint or restore failed: %s", error)


def _pack(differ: Differ, content: ContentStore, directory: Path) -> Descriptor:
    options = CompareOptions(LAYER, ref=_new_ref())
    layer = differ.compare(content, (), (Mount("bind", str(directory), ("rbind", "ro")),), options)
    return Descriptor(CHECKPOINT, layer.digest, layer.size)


def _unpack(differ: Differ, content: ContentStore, checkpoint: Descriptor, directory: Path) -> None:
    layer = Descriptor(LAYER, checkpoint.digest, checkpoint.size)
    differ.apply(content, layer, (Mount("bind", str(directory), ("rbind", "rw")),))
    refuse_strange(directory, f"checkpoint {checkpoint.digest}")


def _new_ref() -> str:
    return f"{PREFIX}-{secrets.token_hex(16)}"
