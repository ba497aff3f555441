"""What `windlass run` asks for, as a container's spec (docs/containerd 6.7, 6.8)."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container
from windlass.contracts.values import Platform
from windlass.errors import AlreadyExists, NotFound
from windlass_client import security
from windlass_client.client import Client
from windlass_client.labels import HEALTH
from windlass_client.lifecycle import healthcheck
from windlass_client.lifecycle.asked import Asked, StopOptions, health_label
from windlass_client.lifecycle.healthcheck import HealthOptions
from windlass_client.lifecycle.restarts import started
from windlass_client.lifecycle.tasks import output_uri
from windlass_client.logs.keeping import LogOptions
from windlass_client.namespace import ClientNamespace
from windlass_client.specparts import SpecParts
from windlass_client.volumes.attach import Attachment, VolumeOptions
from windlass_images import platforms
from windlass_images.imagetree import resolve
from windlass_images.manifests import ImageConfig
from windlass_images.unpack import Progress, ignore
from windlass_local import launch
from windlass_local.launch import BuildSpec, Launched, Rootfs
from windlass_oci import process, resources
from windlass_oci.defaults import default_spec

if TYPE_CHECKING:
    from windlass_client.networks.options import NetworkOptions
    from windlass_client.networks.planned import Plan
    from windlass_oci.runtime_spec import Mount, Spec

HOST_NAME_LIMIT = 63


@dataclass(frozen=True)
class LaunchOptions:
    """How a container is created; an option that is empty leaves it to the image, or to the namespace."""

    image: str
    id: str
    arguments: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes: VolumeOptions | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str | None = None
    user: str = ""
    cwd: str = ""
    hostname: str = ""
    memory: int = 0
    cpus: float = 0
    pids: int = 0
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    network: NetworkOptions | None = None
    """Without it, the container has a network of its own with nothing but a loopback interface."""
    read_only: bool = False
    terminal: bool = False
    name: str = ""
    """What people call it; its ID otherwise."""
    stdin: str = ""
    """``once`` or ``open``, as `Asked.stdin`; empty without standard input."""
    log: LogOptions | None = None
    log_uri: str = ""
    restart: str = ""
    remove: bool = False
    stop: StopOptions = field(default_factory=StopOptions)
    health: HealthOptions = field(default_factory=HealthOptions)
    parts: SpecParts = field(default_factory=SpecParts)
    runtime: str = ""
    snapshotter: str = ""
    platform: Platform = field(default_factory=platforms.host)


async def create(client: Client, options: LaunchOptions, progress: Progress = ignore) -> Launched:
    """Create a container with a writable snapshot over its image; when that fails, neither is left.

    The caller has claimed its name, so that no other client works on one of this ID.
    """
    asked = asked_of(options)
    network = await _network(client, options)
    labels = {**options.labels, **asked.labels(), **started(options.restart, output_uri(client, asked))}
    wanted = Container(
        options.id,
        runtime=options.runtime,
        labels={**labels, **(network.labels if network else {})},
        image=options.image,
        snapshotter=options.snapshotter,
    )

    try:
        async with contextlib.AsyncExitStack() as stack:
            volumes: Attachment | None = None
            if options.volumes is not None:
                volumes = await stack.enter_async_context(Attachment(client, options.volumes, options.id))

            async def build(rootfs: Rootfs) -> Spec:
                spec = await _spec(rootfs, options)
                if volumes:
                    await volumes.attach(spec, rootfs)
                if network:
                    network.write()
                    network.apply(spec)
                return spec

            return await _create(client, wanted, options, build, progress)
    except AlreadyExists:
        raise  # the files are the other container's
    except BaseException:
        if network:
            network.undo()
        raise


async def _create(
    client: Client, wanted: Container, options: LaunchOptions, build: BuildSpec, progress: Progress
) -> Launched:
    """Create a container, also where a client that was killed has left a snapshot of its name.

    That snapshot's lease keeps it for a day.
    """

    def health(image: ImageConfig) -> Mapping[str, str]:
        label = health_label(options.health.over(healthcheck.of_image(image.healthcheck)))
        return {HEALTH: label} if label else {}

    create = partial(launch.create, ClientNamespace(client), platform=options.platform, build=build, progress=progress)
    try:
        return await create(wanted, image_labels=health)
    except AlreadyExists as error:
        with contextlib.suppress(NotFound):
            await client.containers.get(wanted.id)
            raise error from None
    wanted = replace(wanted, snapshot_key=f"{wanted.id}-{secrets.token_hex(4)}")
    return await create(wanted, image_labels=health)


def asked_of(options: LaunchOptions) -> Asked:
    """Return what the labels of a container are to say."""
    return Asked(
        options.id,
        options.name or options.id,
        terminal=options.terminal,
        stdin=options.stdin,
        log=options.log,
        log_uri=options.log_uri,
        restart=options.restart,
        remove=options.remove,
        stop=options.stop,
    )


async def _network(client: Client, options: LaunchOptions) -> Plan | None:
    if options.network is None:
        return None
    from windlass_client.networks import plan

    exposed: Sequence[str] = ()
    if options.network.publish_all:
        exposed = (await resolve(ClientNamespace(client), options.image, options.platform)).image.exposed_ports
    return await plan.make(client, options.id, options.name or options.id, options.hostname, options.network, exposed)


async def _spec(rootfs: Rootfs, options: LaunchOptions) -> Spec:
    spec = default_spec(rootfs.namespace.name, options.id)
    await _set_process(spec, rootfs, options)
    spec["mounts"] += options.mounts
    spec["hostname"] = options.hostname or options.id[:HOST_NAME_LIMIT]
    spec["root"]["readonly"] = options.read_only
    _set_limits(spec, options)
    security.restrict(spec, options.cap_add, options.cap_drop, options.security)
    options.parts.apply(spec)
    if options.parts.groups:
        options.parts.add_groups(spec, await rootfs.accounts())
    return spec


async def _set_process(spec: Spec, rootfs: Rootfs, options: LaunchOptions) -> None:
    first = spec["process"]
    process.apply_image(first, rootfs.image, options.arguments, options.entrypoint)
    process.set_user(first, await rootfs.user(options.user))
    if options.terminal:
        process.set_terminal(first)
    first["env"] = process.merge_env(first["env"], options.env)
    if options.cwd:
        process.set_cwd(first, options.cwd)


def _set_limits(spec: Spec, options: LaunchOptions) -> None:
    if options.memory:
        resources.set_memory(spec, options.memory)
    if options.cpus:
        resources.set_cpus(spec, options.cpus)
    if options.pids not in (0, -1):
        resources.set_pids(spec, options.pids)
