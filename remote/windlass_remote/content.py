"""A content store behind a socket."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import IO

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from windlass.contracts.content import CHUNK, Info, Status
from windlass.contracts.values import Descriptor
from windlass.errors import DataLoss, DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable, Unimplemented
from windlass_api.containerd.services.content.v1 import content_pb2 as pb
from windlass_api.containerd.services.content.v1.content_pb2_grpc import ContentStub
from windlass_remote.messages import from_timestamp
from windlass_remote.peer import Peer

WALK_TIMEOUT = 600.0
WRITE_TIMEOUT = 24 * 3600.0
"""Seconds that one writer may be open: it waits for the process that has the bytes."""
COMMIT_TIMEOUT = 600.0
"""Seconds for a commit, which waits for a disk."""


class RemoteContent:
    """A `windlass.contracts.content.ContentStore`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = ContentStub(peer.channel)

    def info(self, digest: str) -> Info:
        """Describe a blob."""
        return from_info(self._peer.call(self._stub.Info, pb.InfoRequest(digest=digest)).info)

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels."""
        mask = FieldMask(paths=fieldpaths) if fieldpaths else None
        request = pb.UpdateRequest(info=pb.Info(digest=info.digest, labels=info.labels), update_mask=mask)
        return from_info(self._peer.call(self._stub.Update, request).info)

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield what matches, as it arrives."""
        blocks = self._peer.stream(self._stub.List, pb.ListContentRequest(filters=filters), WALK_TIMEOUT)
        return (from_info(info) for block in blocks for info in block.info)

    def delete(self, digest: str) -> None:
        """Forget a blob."""
        self._peer.call(self._stub.Delete, pb.DeleteContentRequest(digest=digest))

    def reader(self, desc: Descriptor) -> RemoteReader:
        """Find a blob; its parts are asked for when they are read."""
        return RemoteReader(self._peer, self._stub, self.info(desc.digest))

    def writer(self, ref: str, size: int = 0, expected: str = "", media_type: str = "") -> RemoteWriter:
        """Open an ingest, or continue it; the wire has no media type."""
        if not ref:
            raise InvalidArgument("an ingest needs a ref")
        return RemoteWriter(self._peer, self._stub, ref, size, expected)

    def status(self, ref: str) -> Status:
        """Describe an ingest."""
        return from_status(self._peer.call(self._stub.Status, pb.StatusRequest(ref=ref)).status)

    def statuses(self, filters: Sequence[str] = ()) -> list[Status]:
        """Describe every ingest that matches."""
        request = pb.ListStatusesRequest(filters=filters)
        return [from_status(status) for status in self._peer.call(self._stub.ListStatuses, request).statuses]

    def abort(self, ref: str) -> None:
        """Give an ingest up."""
        self._peer.call(self._stub.Abort, pb.AbortRequest(ref=ref))


class RemoteReader:
    """A `windlass.contracts.content.Reader` that asks for every part."""

    def __init__(self, peer: Peer, stub: ContentStub, info: Info) -> None:
        self._peer = peer
        self._stub = stub
        self._digest = info.digest
        self._copy: IO[bytes] | None = None
        self.size = info.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Return part of the blob. Raises DataLoss when the peer sends less than there is."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        request = pb.ReadContentRequest(digest=self._digest, offset=offset, size=length)
        data = bytearray()
        for response in self._peer.stream(self._stub.Read, request):
            data += response.data
            if len(data) > length:
                break
        if len(data) != length:
            raise DataLoss(f"{self._peer.name} sent other than {length} bytes of {self._digest} at {offset}")
        return bytes(data)

    def fileno(self) -> int:
        """Return a descriptor of a copy, which is made at the first call."""
        if self._copy is None:
            copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the reader
            try:
                for offset in range(0, self.size, CHUNK):
                    copy.write(self.read_at(offset, CHUNK))
                copy.seek(0)
            except BaseException:
                copy.close()
                raise
            self._copy = copy
        return self._copy.fileno()

    def close(self) -> None:
        """Forget the copy."""
        if self._copy is not None:
            self._copy.close()


class RemoteWriter:
    """A `windlass.contracts.content.Writer`: one exchange with the peer, an answer for every message."""

    def __init__(self, peer: Peer, stub: ContentStub, ref: str, total: int, expected: str) -> None:
        self._peer = peer
        self._stub = stub
        self._first = pb.WriteContentRequest(action=pb.STAT, ref=ref, total=total, expected=expected)
        self._open()

    def _open(self) -> None:
        self._outgoing: SimpleQueue[pb.WriteContentRequest | None] = SimpleQueue()
        messages = iter(self._outgoing.get, None)
        self._call = self._stub.Write(messages, timeout=WRITE_TIMEOUT, metadata=self._peer.metadata)
        self._is_open, self._is_late = True, False
        self._state = self._ask(self._first)

    def _ask(self, request: pb.WriteContentRequest) -> pb.WriteContentResponse:
        if not self._is_open:
            raise FailedPrecondition(f"the writer of {self._first.ref} is closed")
        self._outgoing.put(request)
        watch = threading.Timer(COMMIT_TIMEOUT if request.action == pb.COMMIT else self._peer.timeout, self._expire)
        watch.daemon = True
        watch.start()
        try:
            return next(self._call)
        except StopIteration:
            self.close()
            raise Unavailable(f"{self._peer.name} ended the write of {self._first.ref}; open it again") from None
        except grpc.RpcError as error:
            self.close()
            if self._is_late:
                raise DeadlineExceeded(f"{self._peer.name} did not answer in time; see what keeps it") from None
            raise self._peer.error(error) from None
        except BaseException:
            # Whose answer the next message would get is not known.
            self._call.cancel()
            self.close()
            raise
        finally:
            watch.cancel()

    def _expire(self) -> None:
        self._is_late = True
        self._call.cancel()

    def write(self, data: bytes | memoryview) -> int:
        """Send bytes. Raises DataLoss when the peer has not taken them all."""
        for at in range(0, len(data), CHUNK):
            piece = bytes(data[at : at + CHUNK])
            end = self._state.offset + len(piece)
            request = pb.WriteContentRequest(action=pb.WRITE, offset=self._state.offset, data=piece)
            self._state = self._ask(request)
            if self._state.offset != end:
                raise DataLoss(f"{self._peer.name} has {self._state.offset} of {end} bytes of {self._first.ref}")
        if not self._is_open:
            raise FailedPrecondition(f"the writer of {self._first.ref} is closed")
        return len(data)

    def digest(self) -> str:
        """Ask for the digest of the bytes so far."""
        self._state = self._ask(pb.WriteContentRequest(action=pb.STAT))
        return self._state.digest

    def status(self) -> Status:
        """Describe the ingest, as the last answer did."""
        now = self._state
        return Status(
            self._first.ref,
            now.offset,
            now.total,
            self._first.expected,
            from_timestamp(now.started_at),
            from_timestamp(now.updated_at),
        )

    def truncate(self, size: int) -> None:
        """Give the ingest up and open it again: the wire has no other way."""
        if size:
            raise Unimplemented(f"an ingest can be truncated to 0 bytes only, not to {size}")
        total = self._state.total
        self.close()
        self._peer.call(self._stub.Abort, pb.AbortRequest(ref=self._first.ref))
        self._first.total = total
        self._open()

    def commit(self, size: int = 0, expected: str = "", labels: Mapping[str, str] | None = None) -> None:
        """Make the ingest a blob."""
        request = pb.WriteContentRequest(
            action=pb.COMMIT, offset=self._state.offset, total=size, expected=expected, labels=labels
        )
        self._state = self._ask(request)
        self.close()

    def close(self) -> None:
        """Return when the peer has released the ref."""
        if not self._is_open:
            return
        self._is_open = False
        self._outgoing.put(None)
        watch = threading.Timer(self._peer.timeout, self._call.cancel)
        watch.daemon = True
        watch.start()
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass  # the exchange is over: its error does not matter
        finally:
            watch.cancel()


def from_info(message: pb.Info) -> Info:
    """Return a blob's description."""
    created, updated = from_timestamp(message.created_at), from_timestamp(message.updated_at)
    return Info(message.digest, message.size, created, updated, dict(message.labels))


def from_status(message: pb.Status) -> Status:
    """Return an ingest's description."""
    started, updated = from_timestamp(message.started_at), from_timestamp(message.updated_at)
    return Status(message.ref, message.offset, message.total, message.expected, started, updated)
