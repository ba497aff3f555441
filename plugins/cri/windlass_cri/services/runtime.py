"""``runtime.v1.RuntimeService``: requests to calls, answers to messages. What is missing here is UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import AsyncIterator

from windlass import __version__
from windlass.contracts.rpc import Call, Encoded
from windlass.errors import InvalidArgument, NotFound
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.pods import info as podinfo
from windlass_cri.pods import runtimeconfig
from windlass_cri.record import Container, Pod
from windlass_cri.runtime import CriRuntime
from windlass_cri.selection import containers_that_match, pods_that_match
from windlass_cri.services.checkpoints import CheckpointService
from windlass_cri.services.metrics import MetricsService
from windlass_cri.services.stats import BATCH, StatsService
from windlass_cri.views import container_entry, pod_entry, pod_status
from windlass_streaming.backend import Attach, Exec, PortForward, Wanted

VERSION = "0.1.0"


class RuntimeService(StatsService, MetricsService, CheckpointService):
    """Pods and containers for the kubelet."""

    async def version(self, request: cri.VersionRequest, call: Call) -> cri.VersionResponse:
        """Say who we are."""
        return cri.VersionResponse(
            version=VERSION, runtime_name="windlass", runtime_version=__version__, runtime_api_version="v1"
        )

    async def status(self, request: cri.StatusRequest, call: Call) -> cri.StatusResponse:
        """Say whether pods can run, and have a network."""
        runtime = await self._runtime.ready()
        problem = await runtime.network.problem()
        response = cri.StatusResponse()
        response.status.conditions.add(type="RuntimeReady", status=True)
        if problem:
            reason, message = "NetworkPluginNotReady", f"Network plugin returns error: {problem}"
            response.status.conditions.add(type="NetworkReady", status=False, reason=reason, message=message)
        else:
            response.status.conditions.add(type="NetworkReady", status=True)
        response.status.conditions.add(type="ContainerdHasNoDeprecationWarnings", status=True)
        for name in ("", *sorted(runtime.handlers.runtimes)):
            response.runtime_handlers.add(name=name).features.CopyFrom(await runtime.features(name))
        response.features.supplemental_groups_policy = True
        response.features.user_namespaces_host_network = True
        response.features.mount_options = True
        if request.verbose:
            response.info.update(podinfo.status_info(runtime, problem))
        return response

    async def runtime_config(self, request: cri.RuntimeConfigRequest, call: Call) -> cri.RuntimeConfigResponse:
        """Say which driver of control groups the kubelet has to use."""
        response = cri.RuntimeConfigResponse()
        response.linux.cgroup_driver = self._runtime.handlers.cgroup_driver()
        return response

    async def update_runtime_config(
        self, request: cri.UpdateRuntimeConfigRequest, call: Call
    ) -> cri.UpdateRuntimeConfigResponse:
        """Take the addresses of the node's pods."""
        runtime = await self._runtime.ready()
        cidrs = request.runtime_config.network_config.pod_cidr
        await runtimeconfig.update(runtime.network, runtime.config.cni, cidrs)
        return cri.UpdateRuntimeConfigResponse()

    async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest, call: Call) -> cri.RunPodSandboxResponse:
        """Run a pod."""
        runtime = await self._runtime.ready()
        return cri.RunPodSandboxResponse(pod_sandbox_id=await runtime.pods.run(request.config, request.runtime_handler))

    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest, call: Call) -> cri.StopPodSandboxResponse:
        """Stop a pod; one that is not there is stopped."""
        runtime = await self._runtime.ready()
        if (pod := runtime.pods.index.find(request.pod_sandbox_id)) is not None:
            await runtime.stop_pod(pod)
        return cri.StopPodSandboxResponse()

    async def remove_pod_sandbox(
        self, request: cri.RemovePodSandboxRequest, call: Call
    ) -> cri.RemovePodSandboxResponse:
        """Remove a pod; one that is not there is removed."""
        runtime = await self._runtime.ready()
        if (pod := runtime.pods.index.find(request.pod_sandbox_id)) is not None:
            await runtime.remove_pod(pod)
        return cri.RemovePodSandboxResponse()

    async def pod_sandbox_status(
        self, request: cri.PodSandboxStatusRequest, call: Call
    ) -> cri.PodSandboxStatusResponse:
        """Describe a pod."""
        runtime = await self._runtime.ready()
        pod = _found(runtime.pods.index.find(request.pod_sandbox_id), "an error occurred when try to find sandbox")
        info = await podinfo.pod_info(runtime, pod) if request.verbose else podinfo.NOTHING
        return cri.PodSandboxStatusResponse(status=pod_status(pod), info={"info": info})

    async def update_pod_sandbox_resources(
        self, request: cri.UpdatePodSandboxResourcesRequest, call: Call
    ) -> cri.UpdatePodSandboxResourcesResponse:
        """Keep a pod's changed resources."""
        runtime = await self._runtime.ready()
        pod = _found(runtime.pods.index.find(request.pod_sandbox_id), "failed to find sandbox")
        await runtime.pods.update(pod, request.overhead, request.resources)
        return cri.UpdatePodSandboxResourcesResponse()

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest, call: Call) -> Encoded:
        """List pods."""
        return Encoded(b"".join(await self._pods(request.filter)))

    async def stream_pod_sandboxes(self, request: cri.StreamPodSandboxesRequest, call: Call) -> AsyncIterator[Encoded]:
        """List pods in parts."""
        found = await self._pods(request.filter)
        for start in range(0, len(found), BATCH):
            yield Encoded(b"".join(found[start : start + BATCH]))

    async def _pods(self, wanted: cri.PodSandboxFilter) -> list[bytes]:
        runtime = await self._runtime.ready()
        return [pod_entry(pod) for pod in pods_that_match(runtime.pods.index, wanted)]

    async def create_container(self, request: cri.CreateContainerRequest, call: Call) -> cri.CreateContainerResponse:
        """Create a container in a pod."""
        runtime = await self._runtime.ready()
        pod = _pod(runtime, request.pod_sandbox_id)
        return cri.CreateContainerResponse(container_id=await runtime.containers.create(pod, request.config))

    async def start_container(self, request: cri.StartContainerRequest, call: Call) -> cri.StartContainerResponse:
        """Start a container."""
        runtime = await self._runtime.ready()
        await runtime.containers.start(_container(runtime, request.container_id))
        return cri.StartContainerResponse()

    async def stop_container(self, request: cri.StopContainerRequest, call: Call) -> cri.StopContainerResponse:
        """Stop a container; one that is not there is stopped."""
        runtime = await self._runtime.ready()
        if (container := runtime.containers.index.find(request.container_id)) is not None:
            await runtime.stop_container(container, request.timeout)
        return cri.StopContainerResponse()

    async def remove_container(self, request: cri.RemoveContainerRequest, call: Call) -> cri.RemoveContainerResponse:
        """Remove a container; one that is not there is removed."""
        runtime = await self._runtime.ready()
        if (container := runtime.containers.index.find(request.container_id)) is not None:
            await runtime.containers.remove(container)
        return cri.RemoveContainerResponse()

    async def container_status(self, request: cri.ContainerStatusRequest, call: Call) -> cri.ContainerStatusResponse:
        """Describe a container."""
        runtime = await self._runtime.ready()
        container = _container(runtime, request.container_id)
        info = await runtime.info_of(container) if request.verbose else {}
        return cri.ContainerStatusResponse(status=runtime.status_of(container), info=info)

    async def list_containers(self, request: cri.ListContainersRequest, call: Call) -> Encoded:
        """List containers."""
        return Encoded(b"".join(await self._containers(request.filter)))

    async def stream_containers(self, request: cri.StreamContainersRequest, call: Call) -> AsyncIterator[Encoded]:
        """List containers in parts."""
        found = await self._containers(request.filter)
        for start in range(0, len(found), BATCH):
            yield Encoded(b"".join(found[start : start + BATCH]))

    async def _containers(self, wanted: cri.ContainerFilter) -> list[bytes]:
        runtime = await self._runtime.ready()
        return [container_entry(each) for each in containers_that_match(runtime.containers.index, wanted)]

    async def update_container_resources(
        self, request: cri.UpdateContainerResourcesRequest, call: Call
    ) -> cri.UpdateContainerResourcesResponse:
        """Change a container's limits."""
        runtime = await self._runtime.ready()
        await runtime.update_container(_container(runtime, request.container_id), request.linux)
        return cri.UpdateContainerResourcesResponse()

    async def reopen_container_log(
        self, request: cri.ReopenContainerLogRequest, call: Call
    ) -> cri.ReopenContainerLogResponse:
        """Go on in a new log file."""
        runtime = await self._runtime.ready()
        await runtime.containers.io(_container(runtime, request.container_id)).reopen_log()
        return cri.ReopenContainerLogResponse()

    async def exec_sync(self, request: cri.ExecSyncRequest, call: Call) -> cri.ExecSyncResponse:
        """Execute in a container."""
        runtime = await self._runtime.ready()
        output = await runtime.execs.exec_sync(request.container_id, request.cmd, request.timeout)
        return cri.ExecSyncResponse(stdout=bytes(output.stdout), stderr=bytes(output.stderr), exit_code=output.code)

    async def exec(self, request: cri.ExecRequest, call: Call) -> cri.ExecResponse:
        """Give a URL for an exec."""
        runtime = await self._runtime.ready()
        container = runtime.execs.running(request.container_id)
        wanted = _wanted(request.stdin, request.stdout, request.stderr, request.tty)
        return cri.ExecResponse(url=runtime.streaming.url(Exec(container.id, tuple(request.cmd), wanted)))

    async def attach(self, request: cri.AttachRequest, call: Call) -> cri.AttachResponse:
        """Give a URL for an attach."""
        runtime = await self._runtime.ready()
        container = runtime.execs.running(request.container_id)
        wanted = _wanted(request.stdin, request.stdout, request.stderr, request.tty)
        return cri.AttachResponse(url=runtime.streaming.url(Attach(container.id, wanted)))

    async def port_forward(self, request: cri.PortForwardRequest, call: Call) -> cri.PortForwardResponse:
        """Give a URL for a port-forward."""
        runtime = await self._runtime.ready()
        pod = _pod(runtime, request.pod_sandbox_id)
        return cri.PortForwardResponse(url=runtime.streaming.url(PortForward(pod.id, tuple(request.port))))

    async def get_container_events(
        self, request: cri.GetEventsRequest, call: Call
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        """Tell what happens to pods and containers."""
        runtime = await self._runtime.ready()
        async for event in runtime.events.subscribe():
            yield event


def _wanted(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Wanted:
    """Return which streams a client wants. Raises InvalidArgument for none, and for a terminal's stderr."""
    if tty and stderr:
        raise InvalidArgument("tty and stderr cannot both be true")
    if not (stdin or stdout or stderr):
        raise InvalidArgument("one of stdin, stdout, or stderr must be set")
    return Wanted(stdin, stdout, stderr, tty)


def _found(pod: Pod | None, what: str) -> Pod:
    if pod is None:
        raise NotFound(f"{what}: not found")
    return pod


def _pod(runtime: CriRuntime, id: str) -> Pod:
    return _found(runtime.pods.index.find(id), f'failed to find sandbox "{id[:100]}"')


def _container(runtime: CriRuntime, id: str) -> Container:
    container = runtime.containers.index.find(id)
    if container is None:
        raise NotFound(f'an error occurred when try to find container "{id[:100]}": not found')
    return container
