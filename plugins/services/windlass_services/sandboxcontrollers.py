"""The sandbox Controller service: each request names the controller that it is for."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from windlass.contracts.events import Exchange
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.contracts.sandboxes import SandboxController, SandboxOptions
from windlass.contracts.values import Payload
from windlass.errors import Error, InvalidArgument, NotFound
from windlass.gate import offload
from windlass_api.containerd.events import sandbox_pb2 as events_pb
from windlass_api.containerd.services.sandbox.v1 import sandbox_pb2 as pb
from windlass_api.containerd.types import metrics_pb2
from windlass_remote.messages import any_of, from_any, from_mounts, to_any, to_platform, to_timestamp
from windlass_remote.records import from_record

NO_EXTRA = Payload("", b"")


class SandboxControllerService:
    """``containerd.services.sandbox.v1.Controller``."""

    def __init__(self, controllers: Mapping[str, SandboxController], metadata: Metadata, exchange: Exchange) -> None:
        """Translate for ``controllers``, by their IDs; publishes ``/sandboxes/*``."""
        self._controllers = controllers
        self._metadata = metadata
        self._exchange = exchange

    async def create(self, request: pb.ControllerCreateRequest, call: Call) -> pb.ControllerCreateResponse:
        """Prepare a sandbox; a request that has only its ID is for the record of that ID."""
        controller, namespace = self._controller(request.sandboxer), call.namespace
        if request.HasField("sandbox"):
            sandbox = from_record(request.sandbox)
        else:
            sandbox = await offload(self._metadata.sandboxes(namespace).get, request.sandbox_id)
        if request.sandbox_id and request.sandbox_id != sandbox.id:
            raise InvalidArgument(f"sandbox {request.sandbox_id!r} is asked for with the record of {sandbox.id!r}")
        options = SandboxOptions(
            rootfs=from_mounts(request.rootfs),
            options=from_any(request.options),
            netns_path=request.netns_path,
            annotations=dict(request.annotations),
        )
        await controller.create(namespace, sandbox, options)
        self._publish(namespace, "create", events_pb.SandboxCreate(sandbox_id=sandbox.id))
        return pb.ControllerCreateResponse(sandbox_id=sandbox.id)

    async def start(self, request: pb.ControllerStartRequest, call: Call) -> pb.ControllerStartResponse:
        """Start a sandbox."""
        started = await self._controller(request.sandboxer).start(call.namespace, request.sandbox_id)
        self._publish(call.namespace, "start", events_pb.SandboxStart(sandbox_id=request.sandbox_id))
        return pb.ControllerStartResponse(
            sandbox_id=started.id,
            pid=started.pid,
            created_at=to_timestamp(started.created_at),
            labels=started.labels,
            address=started.address,
            version=started.version,
            spec=to_any(started.spec),
        )

    async def platform(self, request: pb.ControllerPlatformRequest, call: Call) -> pb.ControllerPlatformResponse:
        """Return the platform of a sandbox's containers."""
        platform = await self._controller(request.sandboxer).platform(call.namespace, request.sandbox_id)
        return pb.ControllerPlatformResponse(platform=to_platform(platform))

    async def stop(self, request: pb.ControllerStopRequest, call: Call) -> pb.ControllerStopResponse:
        """End what runs in a sandbox."""
        controller = self._controller(request.sandboxer)
        await controller.stop(call.namespace, request.sandbox_id, float(request.timeout_secs))
        return pb.ControllerStopResponse()

    async def wait(self, request: pb.ControllerWaitRequest, call: Call) -> pb.ControllerWaitResponse:
        """Return how a sandbox ended, and publish it, as containerd does: once for each who waited."""
        exit = await self._controller(request.sandboxer).wait(call.namespace, request.sandbox_id)
        exited_at = to_timestamp(exit.at)
        event = events_pb.SandboxExit(sandbox_id=request.sandbox_id, exit_status=exit.status, exited_at=exited_at)
        self._publish(call.namespace, "exit", event)
        return pb.ControllerWaitResponse(exit_status=exit.status, exited_at=exited_at)

    async def status(self, request: pb.ControllerStatusRequest, call: Call) -> pb.ControllerStatusResponse:
        """Describe a sandbox; ``extra`` is always set (docs/containerd 3.12)."""
        controller = self._controller(request.sandboxer)
        status = await controller.status(call.namespace, request.sandbox_id, request.verbose)
        return pb.ControllerStatusResponse(
            sandbox_id=status.id,
            pid=status.pid,
            state=status.state,
            info=status.info,
            created_at=to_timestamp(status.created_at),
            exited_at=to_timestamp(status.exited_at),
            extra=any_of(status.extra or NO_EXTRA),
            address=status.address,
            version=status.version,
        )

    async def shutdown(self, request: pb.ControllerShutdownRequest, call: Call) -> pb.ControllerShutdownResponse:
        """Free what a sandbox holds."""
        await self._controller(request.sandboxer).shutdown(call.namespace, request.sandbox_id)
        return pb.ControllerShutdownResponse()

    async def metrics(self, request: pb.ControllerMetricsRequest, call: Call) -> pb.ControllerMetricsResponse:
        """Measure a sandbox."""
        metric = await self._controller(request.sandboxer).metrics(call.namespace, request.sandbox_id)
        return pb.ControllerMetricsResponse(
            metrics=metrics_pb2.Metric(timestamp=to_timestamp(metric.timestamp), id=metric.id, data=to_any(metric.data))
        )

    async def update(self, request: pb.ControllerUpdateRequest, call: Call) -> pb.ControllerUpdateResponse:
        """Inform the controller of changes to a record."""
        controller = self._controller(request.sandboxer)
        if not request.HasField("sandbox"):
            # A plain error, as of containerd: over RPC the code is UNKNOWN.
            raise Error(f"update of sandbox {request.sandbox_id!r} has no record of it")
        await controller.update(call.namespace, from_record(request.sandbox), list(request.fields))
        return pb.ControllerUpdateResponse()

    def _controller(self, name: str) -> SandboxController:
        if not name:
            raise InvalidArgument("sandboxer must not be empty: it names the controller, such as shim")
        if name not in self._controllers:
            known = ", ".join(sorted(self._controllers)) or "none"
            raise NotFound(f"sandbox controller {name[:80]} does not exist; there are: {known}")
        return self._controllers[name]

    def _publish(self, namespace: str, what: str, event: Message) -> None:
        payload = Payload(event.DESCRIPTOR.full_name, event.SerializeToString())
        self._exchange.publish(namespace, f"/sandboxes/{what}", payload)
