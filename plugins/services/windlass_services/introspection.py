"""The Introspection service: what became of every plugin, and which daemon this is."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from windlass.contracts.rpc import Call, Encoded
from windlass.contracts.services import GRPC
from windlass.contracts.tasks import RUNTIME, Tasks
from windlass.contracts.values import Payload
from windlass.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from windlass.filters import expressions as filters
from windlass.gate import Gate, offload
from windlass.marks import quick
from windlass.plugin import Record, State
from windlass_api.containerd.services.introspection.v1 import introspection_pb2 as pb
from windlass_api.containerd.types import platform_pb2
from windlass_api.containerd.types.introspection_pb2 import RuntimeRequest
from windlass_api.google.rpc import status_pb2
from windlass_remote.messages import any_of
from windlass_services import gatereport
from windlass_services.streaming import type_of

UNKNOWN = 2
OWN = f"{GRPC.uri}.introspection"


def to_proto(record: Record) -> pb.Plugin:
    """Return a plugin's record as a message."""
    message = pb.Plugin(
        type=record.type,
        id=record.id,
        requires=record.requires,
        platforms=[
            platform_pb2.Platform(os=os, architecture=architecture, variant=variant)
            for os, architecture, variant in record.meta.platforms
        ],
        exports=record.meta.exports,
        capabilities=record.meta.capabilities,
    )
    if record.state == State.DISABLED:
        message.init_err.CopyFrom(status_pb2.Status(code=UNKNOWN, message="disabled by the configuration: skip plugin"))
    elif record.state != State.OK:
        message.init_err.CopyFrom(status_pb2.Status(code=UNKNOWN, message=record.message))
    return message


def _field(record: Record) -> filters.Adaptor:
    fields = {"type": record.type, "id": record.id}

    def read(path: Sequence[str]) -> tuple[str, bool]:
        return fields.get(path[0], ""), path[0] in fields

    return read


class Introspection:
    """``containerd.services.introspection.v1.Introspection``."""

    def __init__(
        self,
        records: Callable[[], tuple[Record, ...]],
        uuid_file: Path,
        runtimes: Mapping[str, Tasks],
        gates: Callable[[], Mapping[str, Gate]],
    ) -> None:
        """Answer from ``records`` and ``gates``, and ask ``runtimes``; the daemon's identity is in ``uuid_file``."""
        self._records = records
        self._uuid_file = uuid_file
        self._runtimes = runtimes
        self._gates = gates
        self._kept: dict[str, tuple[tuple[object, ...], bytes]] = {}
        self._server: pb.ServerResponse | None = None

    @quick
    async def plugins(self, request: pb.PluginsRequest, call: Call) -> Encoded:
        """Return every plugin that matches, in start order."""
        matches = filters.parse(list(request.filters)) if request.filters else None
        found = self._records() if matches is None else [each for each in self._records() if matches(_field(each))]
        return Encoded(b"".join(map(self._encoded, found)))

    def _encoded(self, record: Record) -> bytes:
        """Return a plugin as a list of one, which is kept while the record is as it was."""
        kept, now = self._kept.get(record.uri), (record.state, record.error, record.meta)
        if kept is None or kept[0] != now:
            message = pb.PluginsResponse(plugins=[to_proto(record)])
            kept = ((record.state, record.error, deepcopy(record.meta)), message.SerializeToString())
            self._kept[record.uri] = kept
        return kept[1]

    @quick
    async def server(self, request: Empty, call: Call) -> pb.ServerResponse:
        """Say which daemon this is, which stays the same while it runs."""
        if self._server is None:
            identity = await offload(_identity, self._uuid_file)
            pidns = await offload(os.stat, "/proc/self/ns/pid")
            self._server = pb.ServerResponse(uuid=identity, pid=os.getpid(), pidns=pidns.st_ino)
        return self._server

    async def plugin_info(self, request: pb.PluginInfoRequest, call: Call) -> pb.PluginInfoResponse:
        """Describe one plugin.

        The task manager can be asked for what a runtime can do, and this service for what calls of plugins cost.
        """
        for record in self._records():
            if (record.type, record.id) == (request.type, request.id):
                break
        else:
            raise NotFound(f"plugin {request.type}.{request.id} is not installed")
        if record.state != State.OK:
            raise FailedPrecondition(f"plugin {record.uri} did not start: {record.message}")
        answer = pb.PluginInfoResponse(plugin=to_proto(record))
        if request.HasField("options"):
            if record.uri == OWN and request.options.type_url == gatereport.TYPE:
                answer.extra.CopyFrom(any_of(Payload(gatereport.TYPE, gatereport.report(self._gates()))))
                return answer
            if record.type != RUNTIME.uri or type_of(request.options) != RuntimeRequest.DESCRIPTOR.full_name:
                raise Unimplemented(f"plugin {record.uri} takes no {type_of(request.options)[:100] or 'options'}")
            answer.extra.CopyFrom(any_of(await self._describe(record.id, request.options.value)))
        return answer

    async def _describe(self, id: str, data: bytes) -> Payload:
        try:
            wanted = RuntimeRequest.FromString(data)
        except DecodeError as error:
            raise InvalidArgument(f"{RuntimeRequest.DESCRIPTOR.full_name} does not parse: {error}") from None
        options = Payload(wanted.options.type_url, wanted.options.value) if wanted.HasField("options") else None
        return await self._runtimes[id].describe(wanted.runtime_path, options)


def _identity(file: Path) -> str:
    """Return the daemon's identity, made when it first starts and kept (docs/containerd 3.10)."""
    if file.exists() and (identity := file.read_text().strip()):
        return identity
    identity = str(uuid.uuid4())
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".new")
    scratch.write_text(identity)
    scratch.rename(file)
    return identity
