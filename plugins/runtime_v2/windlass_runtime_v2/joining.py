"""Containers of a sandbox share its shim: where that is found, and how a task moves in (docs/containerd 4.6)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from windlass.contracts.containers import Container
from windlass.contracts.sandboxes import SANDBOX_CONTROLLER
from windlass.contracts.tasks import CreateOptions
from windlass.errors import Error, InvalidArgument, Unavailable
from windlass.records import dataclass
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.bundles import Bundles, storage_error
from windlass_runtime_v2.launch import Launcher
from windlass_runtime_v2.shim import NEWEST, Shim, connect

CONTROLLER = f"{SANDBOX_CONTROLLER.uri}.shim"
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Annotations of a spec that name a sandbox, the first one first (docs/containerd 4.4)."""


@dataclass(frozen=True, slots=True)
class Host:
    """The shim of a sandbox that runs; ``binary`` is its executable, "" when it has none."""

    bootstrap: Bootstrap
    binary: str

    async def join(self, launcher: Launcher, namespace: str, id: str, spec: bytes) -> tuple[Bundle, Shim]:
        """Make a task's bundle and connect to the shim; neither is there when that fails.

        Raises AlreadyExists (bundle), Unavailable.
        """
        bundle = await launcher.on_disk(self._prepare, launcher.bundles, namespace, id, spec)
        try:
            return bundle, await connect(self.bootstrap, namespace)
        except Error as error:
            await launcher.remove(bundle, self.bootstrap)
            raise Unavailable(f"shim of sandbox {self.bootstrap.sandbox} cannot be reached: {error}") from error

    def _prepare(self, bundles: Bundles, namespace: str, id: str, spec: bytes) -> Bundle:
        bundle = bundles.create(namespace, id, spec)
        try:
            bundle.write_bootstrap(self.bootstrap)
            if self.binary:
                bundle.write_shim_binary(self.binary)
        except OSError as error:
            bundles.remove(bundle)
            raise storage_error(f"write into bundle {bundle.path}", bundle.path, error) from error
        return bundle


class SandboxHosts:
    """The sandboxes of this daemon's controller, known by their bundles, which an earlier daemon may have made."""

    def __init__(self, bundles: Bundles) -> None:
        """Look below ``bundles``, and change nothing there."""
        self._bundles = bundles

    @classmethod
    def next_to(cls, state: Path) -> SandboxHosts:
        """Look where the controller keeps its bundles, given where this plugin keeps those of tasks."""
        directory = state.with_name(CONTROLLER)
        return cls(Bundles(directory, directory))

    async def find(
        self, launcher: Launcher, namespace: str, container: Container, options: CreateOptions, spec: bytes
    ) -> Host | None:
        """Return the shim that a container has to share, None when it gets its own.

        A sandbox without a shim of this controller's (a pod whose pause container is
        a task like any other) has nothing to join, unless the client
        says where its Task API is. Raises InvalidArgument for a malformed address.
        """
        sandbox = container.sandbox or group_of(spec)
        host = await launcher.on_disk(self._read, namespace, sandbox) if sandbox else None
        if host is None and container.sandbox and options.task_api_address:
            return at(container.sandbox, options.task_api_address, options.task_api_version)
        return host

    def _read(self, namespace: str, id: str) -> Host | None:
        try:
            bundle = self._bundles.bundle(namespace, id)
        except InvalidArgument:
            return None  # an annotation may be any text
        if not bundle.path.is_dir():
            return None
        bootstrap = bundle.read_bootstrap()
        if bootstrap.version < NEWEST:
            return None  # its binary joins by itself when it is started
        return Host(dataclasses.replace(bootstrap, sandbox=id), bundle.read_shim_binary())


def at(sandbox: str, address: str, version: int) -> Host:
    """Return the shim of a sandbox that some other controller runs; ``address`` is ``<protocol>+<address>``."""
    protocol, plus, rest = address.partition("+")
    if not plus or protocol not in ("ttrpc", "grpc") or not rest:
        raise InvalidArgument(f"task API address {address[:200]!r} is not like ttrpc+unix:///run/x.sock")
    return Host(Bootstrap(rest, version or NEWEST, protocol, sandbox=sandbox), "")


def group_of(spec: bytes) -> str:
    """Return which sandbox the annotations of a spec, a JSON object, name; "" for none."""
    if not any(group.encode() in spec for group in GROUPS):
        return ""
    annotations = json.loads(spec).get("annotations")
    found = [annotations.get(group) for group in GROUPS] if isinstance(annotations, dict) else []
    return next((name for name in found if name and isinstance(name, str)), "")
