"""Runtime handlers: which one a pod gets, its options, and what it is able to do (docs/containerd 5.2 and 5.5)."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError

from windlass.contracts.tasks import Tasks
from windlass.contracts.values import Payload
from windlass.errors import Error, InvalidArgument, Unknown
from windlass_api.containerd.runc.v1.options_pb2 import Options
from windlass_api.containerd.types.introspection_pb2 import RuntimeInfo
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import Containerd, Runtime
from windlass_cri.spec.basespec import read_base_spec
from windlass_cri.spec.userns import io_owner
from windlass_oci.runtime_spec import Spec

logger = logging.getLogger(__name__)

UNTRUSTED = "untrusted"
UNTRUSTED_WORKLOAD = "io.kubernetes.cri.untrusted-workload"
OPTIONS = "containerd.runc.v1.Options"
RECURSIVE_READ_ONLY = (5, 12)
"""The first Linux that can make all mounts below one read-only."""


class Handlers:
    """The runtimes of the configuration, by the names that pods use."""

    def __init__(self, config: Containerd, tasks: Tasks | None = None) -> None:
        """Serve the handlers of ``config``; runc is there without being named. ``tasks`` are asked for features."""
        self._default = config.default_runtime_name
        self.runtimes = {"runc": Runtime(), **config.runtimes}
        self._tasks = tasks
        self._features: dict[str, cri.RuntimeHandlerFeatures] = {}
        self._base_specs: dict[str, Spec] = {}

    def get(self, name: str) -> Runtime:
        """Return what a handler stands for; an empty name is the default's. Raises Unknown."""
        name = name or self._default
        try:
            return self.runtimes[name]
        except KeyError:
            there = ", ".join(sorted(self.runtimes))
            raise Unknown(f'no runtime for "{name[:100]}" is configured; there are {there}') from None

    async def features(self, name: str) -> cri.RuntimeHandlerFeatures:
        """Return what a handler is able to do; its runtime is asked once. Raises Unknown."""
        runtime, name = self.get(name), name or self._default
        if name not in self._features and self._tasks is not None:
            self._features[name] = await features_of(self._tasks, runtime)
        return self._features.get(name, cri.RuntimeHandlerFeatures())

    def base_spec(self, name: str) -> Spec | None:
        """Return the spec that containers of a handler start from, None for the default one. Blocks; raises Unknown."""
        path = self.get(name).base_runtime_spec
        if not path:
            return None
        if path not in self._base_specs:
            self._base_specs[path] = read_base_spec(Path(path))
        return copy.deepcopy(self._base_specs[path])

    def in_order(self) -> list[str]:
        """Return the names, the default's first."""
        return sorted(self.runtimes, key=lambda name: (name != self._default, name))

    def sandboxers(self) -> set[str]:
        """Return the IDs of the controllers that make pods."""
        return {each.sandboxer for each in self.runtimes.values()}

    def cgroup_driver(self) -> cri.CgroupDriver.ValueType:
        """Return what the kubelet has to make control groups with: as the first runtime does that is runc's kind."""
        for name in self.in_order():
            if takes_runc_options(self.runtimes[name]):
                return cri.SYSTEMD if self.runtimes[name].options.get("SystemdCgroup") else cri.CGROUPFS
        return cri.SYSTEMD if Path("/run/systemd/system").is_dir() else cri.CGROUPFS


def handler_of(config: cri.PodSandboxConfig, wanted: str) -> str:
    """Return the handler of a pod, for which its client wants ``wanted``. Raises Unknown."""
    if config.annotations.get(UNTRUSTED_WORKLOAD) != "true":
        return wanted
    if wanted not in ("", UNTRUSTED):
        raise Unknown("untrusted workload with explicit runtime handler is not allowed")
    options = config.linux.security_context.namespace_options
    if cri.NODE in (options.network, options.pid, options.ipc):
        raise Unknown("untrusted workload with host access is not allowed")
    return UNTRUSTED


def takes_runc_options(runtime: Runtime) -> bool:
    """Tell whether a runtime has runc's options."""
    return runtime.runtime_type.startswith(("io.containerd.runc.", "io.containerd.windlass.", "io.windlass."))


def options_of(runtime: Runtime) -> Payload | None:
    """Return the options that a runtime's shim gets, None without. Raises InvalidArgument."""
    if not runtime.options or not takes_runc_options(runtime):
        return None
    known = {field.camelcase_name[:1].upper() + field.camelcase_name[1:]: field for field in Options.DESCRIPTOR.fields}
    values = {known[key].name: value for key, value in runtime.options.items() if key in known}
    try:
        made = ParseDict(values, Options())
    except ParseError as error:
        raise InvalidArgument(f"options of runtime {runtime.runtime_type}: {error}") from None
    return Payload(OPTIONS, made.SerializeToString())


def task_options(runtime: Runtime, spec: Spec) -> Payload | None:
    """Return the options of a task that its container's do not have: who its streams belong to. Raises Unknown."""
    owner = io_owner(spec)
    if owner is None or not takes_runc_options(runtime):
        return None
    options = options_of(runtime)
    made = Options.FromString(options.value) if options else Options()
    made.io_uid, made.io_gid = owner
    return Payload(OPTIONS, made.SerializeToString())


async def features_of(tasks: Tasks, runtime: Runtime) -> cri.RuntimeHandlerFeatures:
    """Ask a runtime what it is able to do; one that does not say is able to do nothing of it."""
    found = cri.RuntimeHandlerFeatures()
    try:
        info = await tasks.describe(runtime.runtime_path or runtime.runtime_type, options_of(runtime))
        document = json.loads(RuntimeInfo.FromString(info.value).features.value or b"{}")
    except (Error, OSError, ValueError, DecodeError) as error:
        logger.warning("runtime %s does not say what it is able to do: %s", runtime.runtime_type, error)
        return found
    if not isinstance(document, Mapping):
        return found
    if "rro" in (document.get("mountOptions") or ()) and kernel_version(os.uname().release) >= RECURSIVE_READ_ONLY:
        found.recursive_read_only_mounts = True
    linux = document.get("linux") or {}
    mount = (linux.get("mountExtensions") or {}).get("idmap") or {}
    if "user" in (linux.get("namespaces") or ()) and mount.get("enabled"):
        found.user_namespaces = True
    return found


def kernel_version(release: str) -> tuple[int, int]:
    """Return the first two numbers of a release such as 6.1.0-13-amd64; zeros for what is none."""
    numbers = [part for part in release.split("-")[0].split(".")[:2] if part.isdecimal()]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)
