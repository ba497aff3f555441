"""The configuration of NRI, with containerd's keys, and what a failing plugin means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from windlass.config import durations
from windlass.records import dataclass

OPEN = "open"
CLOSED = "closed"


@dataclass(frozen=True)
class Policy:
    """One of ``policies``, by a plugin's name, with its index or without."""

    #: When the plugin is absent, ends or does not answer in time: open goes on without it, closed refuses.
    on_failure: str = OPEN
    #: Pods with all of these labels are let through by closed; the plugin's own pod has to be one.
    exempt_labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is neither."""
        if self.on_failure not in (OPEN, CLOSED):
            raise ValueError(f'on_failure is "{OPEN}" or "{CLOSED}", not "{self.on_failure}"')
        if self.exempt_labels and self.on_failure == OPEN:
            raise ValueError(f'exempt_labels has no effect; set on_failure = "{CLOSED}"')

    def exempts(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a pod with these labels is let through."""
        return bool(self.exempt_labels) and self.exempt_labels.items() <= dict(labels).items()


@dataclass(frozen=True)
class DefaultValidator:
    """Table ``default_validator``: adjustments that no plugin may make, and plugins that have to be there."""

    enable: bool = False
    #: Refuse OCI hooks.
    reject_oci_hook_adjustment: bool = False
    #: Refuse a seccomp policy where the runtime's default is wanted.
    reject_runtime_default_seccomp_adjustment: bool = False
    #: Refuse a seccomp policy where none is wanted.
    reject_unconfined_seccomp_adjustment: bool = False
    #: Refuse a seccomp policy where a file's is wanted.
    reject_custom_seccomp_adjustment: bool = False
    #: Refuse namespaces.
    reject_namespace_adjustment: bool = False
    #: Refuse sysctls.
    reject_sysctl_adjustment: bool = False
    #: Names of plugins without which no container is created.
    required_plugins: tuple[str, ...] = ()
    #: Annotation of pods whose containers do not need these plugins.
    tolerate_missing_plugins_annotation: str = ""


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.nri.v1.nri``."""

    #: Have no NRI.
    disable: bool = False
    #: Where plugins connect.
    socket_path: str = "/var/run/nri/nri.sock"
    #: Directory of plugins that the daemon starts, named as INDEX-NAME.
    plugin_path: str = "/opt/nri/plugins"
    #: Directory of their configurations, INDEX-NAME.conf or NAME.conf.
    plugin_config_path: str = "/etc/nri/conf.d"
    #: How long a plugin may take to register after it has connected.
    plugin_registration_timeout: str = "5s"
    #: How long it may take for a request.
    plugin_request_timeout: str = "2s"
    #: Let no plugin connect; only those of plugin_path run.
    disable_connections: bool = False
    default_validator: DefaultValidator = field(default_factory=DefaultValidator)
    #: What a failure means, by the plugin's name; open for those that are not named.
    policies: dict[str, Policy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        if self.registration_timeout <= 0 or self.request_timeout <= 0:
            raise ValueError("plugin_registration_timeout and plugin_request_timeout have to be more than 0")

    @property
    def registration_timeout(self) -> float:
        """Seconds."""
        return durations.seconds(self.plugin_registration_timeout)

    @property
    def request_timeout(self) -> float:
        """Seconds."""
        return durations.seconds(self.plugin_request_timeout)
