"""The objects under test behind a socket: a plugin of its own, or one of a daemon by name, empty for every case."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import Differ
from windlass.contracts.events import Exchange
from windlass.contracts.sandboxes import SandboxController
from windlass.contracts.snapshots import Snapshotter
from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_api.containerd.services.leases.v1.leases_pb2_grpc import LeasesStub
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2
from windlass_api.containerd.services.namespaces.v1.namespaces_pb2_grpc import NamespacesStub
from windlass_conformance.daemon_runtime import DaemonRuntime
from windlass_conformance.remote_events import RemoteExchange
from windlass_conformance.remote_metadata import RemoteMetadata
from windlass_conformance.remote_sandboxes import RecordedSandboxController
from windlass_conformance.runtimes import Runtime
from windlass_conformance.shim_runtime import ShimRuntime
from windlass_remote.content import RemoteContent
from windlass_remote.diff import RemoteDiffer
from windlass_remote.peer import Peer
from windlass_remote.snapshots import RemoteSnapshotter


@contextmanager
def snapshotter(address: str | None, name: str) -> Iterator[Snapshotter]:
    """Yield the snapshotter ``name`` of the daemon at ``address``, or the one whose socket is ``name``."""
    if address is None:
        with Peer(_path(name)) as peer:
            found = RemoteSnapshotter(peer, "conformance")
            _must_be_empty(name, [info.name for info in found.walk()])
            try:
                yield found
            finally:
                remove_snapshots(found)
        return
    with _namespace(address) as peer:
        found = RemoteSnapshotter(peer, name)
        try:
            yield found
        finally:
            remove_snapshots(found)


@contextmanager
def content(address: str | None, name: str) -> Iterator[ContentStore]:
    """Yield the content store of the daemon at ``address``, or the one whose socket is ``name``."""
    if address is None:
        with Peer(_path(name)) as peer:
            found = RemoteContent(peer)
            _must_be_empty(name, [info.digest for info in found.walk()] + [each.ref for each in found.statuses()])
            try:
                yield found
            finally:
                remove_content(found)
        return
    with _namespace(address) as peer:
        found = RemoteContent(peer)
        try:
            yield found
        finally:
            remove_content(found)


@contextmanager
def differ(address: str, name: str) -> Iterator[tuple[Differ, ContentStore]]:
    """Yield the differ of the daemon at ``address``, or the one whose socket is ``name``, and the daemon's blobs."""
    with _namespace(address) as peer, ExitStack() as stack:
        there = stack.enter_context(Peer(_path(name), peer.metadata[0][1])) if name else peer
        store = RemoteContent(peer)
        try:
            yield RemoteDiffer(there), store
        finally:
            remove_content(store)


@contextmanager
def metadata(address: str, snapshotter: str) -> Iterator[tuple[RemoteMetadata, str, str]]:
    """Yield the metadata store of the daemon at ``address``, and the names of two empty namespaces."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(_namespace(address)).metadata[0][1] for _ in range(2))
        found = RemoteMetadata(address, snapshotter, first, stack)
        try:
            yield found, first, second
        finally:
            for each in (first, second):
                _empty(found, each, snapshotter)


def _empty(found: RemoteMetadata, namespace: str, snapshotter: str) -> None:
    for lease in found.leases(namespace).list():
        found.leases(namespace).delete(lease.id)
    for name in found.images(namespace).names():
        found.images(namespace).delete(name)
    for name in found.containers(namespace).names():
        found.containers(namespace).delete(name)
    remove_snapshots(found.snapshotter(snapshotter, namespace))
    remove_content(found.content(namespace))


@contextmanager
def events(address: str) -> Iterator[Callable[[], Exchange]]:
    """Yield what finds the events of the daemon at ``address``."""
    with Peer(address) as peer:
        yield lambda: RemoteExchange(peer)


@contextmanager
def sandboxes(address: str, name: str) -> Iterator[tuple[Callable[[], SandboxController], str]]:
    """Yield what finds the sandbox controller ``name`` of the daemon at ``address``, and an empty namespace."""
    with _namespace(address) as peer:
        yield lambda: RecordedSandboxController(peer, name), peer.metadata[0][1]


@contextmanager
def runtime(address: str | None, name: str, directory: Path) -> Iterator[Runtime]:
    """Yield the runtime ``name`` of the daemon at ``address``, or the shim whose binary is at the path ``name``."""
    if address is None:
        if not name.startswith("/"):
            raise FailedPrecondition(f"{name!r} is not the path of a shim's binary; use /PATH, or --address and a name")
        shim = ShimRuntime(name, directory)
        try:
            yield shim
        finally:
            shim.close()
        return
    with _namespace(address) as peer:
        daemon = DaemonRuntime(peer, peer.metadata[0][1], name, directory)
        try:
            yield daemon
        finally:
            daemon.close()


def remove_snapshots(found: Snapshotter) -> None:
    """Remove all snapshots, children first."""
    left = {info.name for info in found.walk()}
    while left:
        before = set(left)
        for name in before:
            try:
                found.remove(name)
            except FailedPrecondition:
                continue  # it has children, which go first
            except NotFound:
                pass
            left.discard(name)
        if left == before:
            raise FailedPrecondition(f"snapshots cannot be removed: {', '.join(sorted(left))}")


def remove_content(found: ContentStore) -> None:
    """Remove all blobs and ingests."""
    for status in found.statuses():
        with suppress(NotFound):  # collected meanwhile
            found.abort(status.ref)
    for digest in [info.digest for info in found.walk()]:
        with suppress(NotFound):
            found.delete(digest)


def version_of(address: str) -> dict[str, str]:
    """Return a daemon's versions; a plugin's socket has none."""
    from google.protobuf.empty_pb2 import Empty

    from windlass_api.containerd.services.version.v1.version_pb2_grpc import VersionStub

    with Peer(address) as peer:
        try:
            answer = peer.call(VersionStub(peer.channel).Version, Empty())
        except Error:
            return {}
    return {"version": answer.version, "revision": answer.revision}


@contextmanager
def _namespace(address: str) -> Iterator[Peer]:
    """Yield a peer whose calls are in a namespace that is made now, and removed with what was collected by then."""
    name = f"conformance-{secrets.token_hex(6)}"
    with Peer(address, name) as peer:
        namespaces = NamespacesStub(peer.channel)
        made = namespaces_pb2.CreateNamespaceRequest(namespace=namespaces_pb2.Namespace(name=name))
        peer.call(namespaces.Create, made)
        try:
            yield peer
        finally:
            try:
                _collect(peer)
            finally:
                peer.call(namespaces.Delete, namespaces_pb2.DeleteNamespaceRequest(name=name))


def _collect(peer: Peer) -> None:
    """Have garbage collected, so that no blob is left that another case would find in the store."""
    leases = LeasesStub(peer.channel)
    peer.call(leases.Create, leases_pb2.CreateRequest(id="last"))
    peer.call(leases.Delete, leases_pb2.DeleteRequest(id="last", sync=True))


def _path(name: str) -> str:
    path = name.removeprefix("unix://")
    if not path.startswith("/"):
        raise FailedPrecondition(f"{name!r} is not a socket; use unix:///PATH, or --address and a name")
    return path


def _must_be_empty(name: str, found: list[str]) -> None:
    if found:
        raise FailedPrecondition(
            f"{name} has {len(found)} objects, such as {found[0]!r}; all it has would be removed, so give an empty one"
        )
