"""The default validator: refuses adjustments that an administrator has forbidden, and asks for required plugins.

The rules and configuration keys are those of containerd/nri plugins/default-validator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from windlass.errors import Unknown
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Merged

REQUIRED_PLUGINS = "required-plugins.noderesource.dev"
"""The annotation that names plugins without which a pod's containers are not created."""
TRUE = ("1", "t", "T", "TRUE", "true", "True")
FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Rejected(Unknown):
    """A validator refuses the adjustments of a container; the message names plugin and field."""


@dataclass(frozen=True)
class Config:
    """What the default validator refuses; the fields are NRI's configuration keys."""

    enable: bool = False
    reject_oci_hook_adjustment: bool = False
    reject_runtime_default_seccomp_adjustment: bool = False
    reject_unconfined_seccomp_adjustment: bool = False
    reject_custom_seccomp_adjustment: bool = False
    reject_namespace_adjustment: bool = False
    reject_sysctl_adjustment: bool = False
    required_plugins: tuple[str, ...] = ()
    tolerate_missing_plugins_annotation: str = ""


class DefaultValidator:
    """Checks requests as NRI's own default validator does."""

    def __init__(self, config: Config) -> None:
        """Refuse what ``config`` says, whether or not it is enabled."""
        self._config = config

    def validate(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        """Raise Rejected for adjustments that the configuration forbids, or for plugins that are missing."""
        for reason in self._reasons(request):
            raise Rejected(f"validation error: {reason}")

    def _reasons(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        if request.HasField("adjust"):
            yield from self._hooks(request)
            yield from self._seccomp(request)
            yield from self._namespaces(request)
        yield from self._missing(request)
        if request.HasField("adjust"):
            yield from self._sysctl(request)

    def _hooks(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        owners = _owners(request).simple.get(nri.OciHooks, "")
        if owners and self._config.reject_oci_hook_adjustment:
            yield f'plugin{"s" if "," in owners else ""} "{owners}" attempted restricted OCI hook injection'

    def _seccomp(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        owner = _owners(request).simple.get(nri.SeccompPolicy, "")
        if not owner:
            return
        linux = request.container.linux
        profile = nri.SecurityProfile.UNCONFINED
        if linux.HasField("seccomp_profile"):
            profile = linux.seccomp_profile.profile_type
        rejected = {
            nri.SecurityProfile.UNCONFINED: (self._config.reject_unconfined_seccomp_adjustment, "unconfined"),
            nri.SecurityProfile.RUNTIME_DEFAULT: (
                self._config.reject_runtime_default_seccomp_adjustment,
                "runtime default",
            ),
            nri.SecurityProfile.LOCALHOST: (self._config.reject_custom_seccomp_adjustment, "custom"),
        }
        if profile in rejected and rejected[profile][0]:
            yield f"plugin {owner} attempted restricted {rejected[profile][1]} seccomp policy adjustment"

    def _namespaces(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        owners = _owners(request).compound.get(nri.Namespace)
        if owners is not None and self._config.reject_namespace_adjustment:
            named = ", ".join(f'"{plugin}" (namespace "{name}")' for name, plugin in sorted(owners.owners.items()))
            yield f"attempted restricted namespace adjustment by plugin(s) {named}"

    def _sysctl(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        owners = _owners(request).compound.get(nri.Sysctl)
        if owners is None or not self._config.reject_sysctl_adjustment:
            return
        found = sorted({owners.owners[key] for key in request.adjust.linux.sysctl if key in owners.owners})
        if found:
            yield f"attempted restricted sysctl adjustment by plugin(s) {', '.join(found)}"

    def _missing(self, request: nri.ValidateContainerAdjustmentRequest) -> Iterator[str]:
        pod, container = request.pod, request.container.name
        if annotation := self._config.tolerate_missing_plugins_annotation:
            value = effective_annotation(pod, annotation, container)
            if value in TRUE:
                return
            if value is not None and value not in FALSE:
                yield f'invalid {annotation} annotation "{value}": it is neither true nor false'
        required = list(self._config.required_plugins)
        annotated = effective_annotation(pod, REQUIRED_PLUGINS, container)
        if annotated is not None:
            try:
                required += _list(annotated)
            except ValueError as error:
                yield f'invalid {REQUIRED_PLUGINS} annotation "{annotated}": {error}'
        present = {name for each in request.plugins for name in (each.name, f"{each.index}-{each.name}")}
        missing = [name for name in required if name not in present]
        if missing:
            yield f'required plugin{"s" if len(missing) > 1 else ""} "{",".join(missing)}" not present'


def effective_annotation(pod: nri.PodSandbox, key: str, container: str) -> str | None:
    """Return the value that counts for a container: its own, the pod's, or the plain one."""
    for name in (f"{key}/container.{container}", f"{key}/pod", key):
        if name in pod.annotations:
            return pod.annotations[name]
    return None


def request(
    pod: nri.PodSandbox, container: nri.Container, merged: Merged, plugins: Iterable[tuple[str, str]]
) -> nri.ValidateContainerAdjustmentRequest:
    """Return what validators get: the container as it was, what plugins did to it, and who.

    ``plugins`` are index and name of all that were asked.
    """
    return nri.ValidateContainerAdjustmentRequest(
        pod=pod,
        container=container,
        adjust=merged.adjustment,
        update=merged.updates,
        owners=merged.owners,
        plugins=[nri.PluginInstance(index=index, name=name) for index, name in plugins],
    )


def _owners(request: nri.ValidateContainerAdjustmentRequest) -> nri.FieldOwners:
    return request.owners.owners.get(request.container.id, nri.FieldOwners())


def _list(text: str) -> list[str]:
    """Read a YAML list of plugin names, in either of its styles: names need none of YAML's further rules."""
    lines = [line for line in (line.split(" #")[0].rstrip() for line in text.splitlines()) if line.strip()]
    joined = " ".join(line.strip() for line in lines)
    items = [re.fullmatch(r"( *)-\s+(.*)", line) for line in lines]
    if joined.startswith("[") and joined.endswith("]"):
        entries = [entry.strip() for entry in joined[1:-1].split(",")]
        if entries[-1] == "":
            entries.pop()
    elif not lines:
        entries = []
    elif all(item and items[0] and item[1] == items[0][1] for item in items):  # all indented alike
        entries = [item[2].strip() for item in items if item]
    else:
        raise ValueError("it is not a YAML list of names")
    names = [entry[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", entry) else entry for entry in entries]
    for name in names:
        if not re.fullmatch(r"[a-zA-Z0-9_.+-]+", name):
            raise ValueError(f"{name!r} is not a plugin's name")
    return names
