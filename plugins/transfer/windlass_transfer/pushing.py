"""A push: blobs side by side, then the manifests that name them, then indexes, the tag last (docs/containerd 6.3)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Sequence

from windlass.contracts.content import Reader
from windlass.contracts.transfer import Progress, Registry, Report, Stored
from windlass.contracts.values import Descriptor
from windlass.errors import NotFound
from windlass_images import platforms
from windlass_images.manifests import MANIFEST_LIMIT, is_distributable
from windlass_images.survey import Node, missing, survey
from windlass_local.store import LocalStore
from windlass_registry.pushing import Pusher
from windlass_registry.repository import Repository
from windlass_transfer.downloads import SOURCE, ref_of
from windlass_transfer.workers import Tools


class Push:
    """One push on its way."""

    def __init__(self, tools: Tools, store: LocalStore, repository: Repository, report: Report) -> None:
        """Send from ``store`` to ``repository``."""
        self._tools = tools
        self._store = store
        self._repository = repository
        self._report = report
        self._name = ""
        self._parents: dict[str, tuple[str, ...]] = {}
        self._loop = asyncio.get_running_loop()

    async def run(self, source: Stored, destination: Registry) -> None:
        """Push, and return when the tag stands for the image."""
        goal = f"OCI Registry ({self._repository.reference})"
        self._name = source.name
        self._report(Progress(f"Pushing to {goal}"))
        root = _whole(await survey(self._store, source.name, source.platforms or None), source)
        self._parents = _parents(root)
        pusher = self._repository.pusher()
        self._report(Progress("pushing content", self._name, desc=root.target))
        blobs = {node.target.digest: node for node in root.below() if _is_blob(node)}
        await self._each(list(blobs.values()), lambda node: self._push_blob(pusher, node))
        for level in _levels(root):
            await self._each(level, lambda node: self._push_manifest(pusher, node, ""))
        await self._push_manifest(pusher, root, self._repository.reference.tag)
        self._report(Progress("pushed content", self._name, desc=root.target))
        self._report(Progress(f"Completed push to {goal}", desc=root.target))

    async def _each(self, nodes: Sequence[Node], push: Callable[[Node], object]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(push(node))  # type: ignore[arg-type] # a coroutine of this class
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _push_blob(self, pusher: Pusher, node: Node) -> None:
        self._tell("waiting", node.target, 0)
        sources = [name for name in node.labels.get(self._source_key(), "").split(",") if name]
        near = _nearest(sources, self._repository.reference.repository)
        async with self._tools.uploads:
            sent = await self._tools.layers.run(lambda: self._send(pusher, node.target, near), self._repository.abort)
        self._tell("complete" if sent else "already exists", node.target, node.target.size)

    def _send(self, pusher: Pusher, target: Descriptor, near: str) -> bool:
        reader = self._store.content.view.reader(target)
        try:
            return pusher.push_blob(target, lambda: _Body(reader, lambda done: self._sent(target, done)), near)
        finally:
            reader.close()

    def _sent(self, target: Descriptor, done: int) -> None:
        self._loop.call_soon_threadsafe(self._tell, "uploading", target, done)

    async def _push_manifest(self, pusher: Pusher, node: Node, tag: str) -> None:
        data = await self._store.content.read(node.target.digest, MANIFEST_LIMIT)
        await self._tools.documents.run(lambda: pusher.push_manifest(node.target, data, tag), self._repository.abort)
        self._tell("complete", node.target, node.target.size)

    def _source_key(self) -> str:
        return SOURCE + self._repository.reference.hostname

    def _tell(self, event: str, target: Descriptor, progress: int) -> None:
        parents = self._parents.get(target.digest) or (self._name,)
        self._report(Progress(event, ref_of(target), parents, progress, target.size, target))


class _Body(io.RawIOBase):
    """A blob as a file that is read from its beginning."""

    def __init__(self, reader: Reader, show: Callable[[int], None]) -> None:
        super().__init__()
        self._reader = reader
        self._show = show
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._reader.read_at(self._position, size if size >= 0 else self._reader.size - self._position)
        self._position += len(data)
        self._show(self._position)
        return data


def _whole(root: Node, source: Stored) -> Node:
    """Return what is pushed: all of the image, or, of an image of which one platform is there and wanted, that one."""
    absent = [node for node in missing([root]) if is_distributable(node.target.media_type)]
    left_out = root.role == "index" and source.platforms
    if not absent and not left_out:
        return root
    images = [node for node in root.images() if node.present and not missing([node])]
    fitting = [node for node in images if node.image and platforms.matches(source.platforms or None, node.platform)]
    if source.platforms and len(fitting) == 1:
        return fitting[0]
    if not absent:
        return root
    digest = absent[0].target.digest
    raise NotFound(
        f"image {source.name} is not all here: blob {digest} is missing; pull it for all platforms,"
        " or push one platform that is here"
    )


def _is_blob(node: Node) -> bool:
    return node.role in ("config", "layer", "blob") and node.present and is_distributable(node.target.media_type)


def _parents(root: Node) -> dict[str, tuple[str, ...]]:
    """Return the names of the documents above each blob, for progress reports."""
    found: dict[str, dict[str, None]] = {}
    for node in root.below():
        for child in node.children:
            found.setdefault(child.target.digest, {})[ref_of(node.target)] = None
    return {digest: tuple(names) for digest, names in found.items()}


def _levels(root: Node) -> list[list[Node]]:
    """Return the manifests and indexes below the root, those first that others name."""
    depths: dict[str, tuple[int, Node]] = {}

    def visit(node: Node) -> int:
        if node.target.digest in depths:
            return depths[node.target.digest][0]
        own = [
            child for child in node.children if not _is_blob(child) and child.role in ("index", "manifest", "artifact")
        ]
        depth = 1 + max((visit(child) for child in own), default=0)
        depths[node.target.digest] = (depth, node)
        return depth

    top = visit(root)
    return [[node for depth, node in depths.values() if depth == level] for level in range(1, top)]


def _nearest(sources: Sequence[str], repository: str) -> str:
    """Return the repository with the longest common beginning, as the likeliest that may be read; empty for none."""

    def common(name: str) -> int:
        count = 0
        for mine, other in zip(name.split("/"), repository.split("/"), strict=False):
            if mine != other:
                break
            count += 1
        return count

    return max((name for name in sources if name != repository), key=common, default="")
