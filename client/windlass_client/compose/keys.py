"""The keys of the Compose specification: those that are read, and those that are refused, with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

PROJECT = {"name", "version", "services", "networks", "volumes", "secrets", "configs"}
PROJECT_REFUSED = {
    "include": "name the other files with -f",
    "models": "there is nothing here that runs models",
}

SERVICE = {
    *("build", "cap_add", "cap_drop", "command", "configs", "container_name", "cpus", "depends_on"),
    *("deploy", "devices", "dns", "dns_opt", "dns_search", "entrypoint", "env_file", "environment", "expose"),
    *("extends", "extra_hosts", "group_add", "healthcheck", "hostname", "image", "init", "labels", "mem_limit"),
    *("network_mode", "networks", "pids_limit", "platform", "ports", "profiles", "pull_policy", "read_only"),
    *("restart", "runtime", "scale", "secrets", "security_opt", "stdin_open", "stop_grace_period", "stop_signal"),
    *("domainname", "gpus", "oom_score_adj", "privileged", "shm_size", "sysctls", "ulimits"),
    *("tmpfs", "tty", "user", "volumes", "working_dir"),
}
_REMOVE = "remove the key"
_LIMIT = "cpus, mem_limit and pids_limit are what can be limited"
_VOLUMES = "name the volumes under volumes"
SERVICE_REFUSED: Mapping[str, str] = {
    "annotations": "use labels",
    "attach": "name the services to follow: `windlass compose logs -f SERVICE`",
    "blkio_config": _LIMIT,
    "cgroup": _REMOVE,
    "cgroup_parent": _REMOVE,
    "cpu_count": "use cpus",
    "cpu_percent": "use cpus",
    "cpu_period": "use cpus",
    "cpu_quota": "use cpus",
    "cpu_rt_period": _LIMIT,
    "cpu_rt_runtime": _LIMIT,
    "cpu_shares": _LIMIT,
    "cpuset": _LIMIT,
    "credential_spec": _REMOVE,
    "develop": "run `windlass compose up` again after a change",
    "device_cgroup_rules": "name each device under devices",
    "external_links": "put both services into one external network",
    "ipc": _REMOVE,
    "isolation": _REMOVE,
    "label_file": "put the labels under labels",
    "links": "services of a network reach each other by name; give another name under networks, in aliases",
    "logging": "logs are kept as docker's json-file has them, rotated by size; see `windlass compose logs`",
    "mac_address": _REMOVE,
    "mem_reservation": _LIMIT,
    "mem_swappiness": _LIMIT,
    "memswap_limit": _LIMIT,
    "models": _REMOVE,
    "oom_kill_disable": _REMOVE,
    "pid": _REMOVE,
    "post_start": "use a service of its own, with depends_on",
    "pre_stop": "handle stop_signal in the program",
    "provider": _REMOVE,
    "storage_opt": _REMOVE,
    "use_api_socket": "mount the socket under volumes",
    "userns_mode": _REMOVE,
    "uts": _REMOVE,
    "volumes_from": _VOLUMES,
}

DEPLOY = {"replicas", "resources", "mode", "labels", "restart_policy"}
_SWARM = "only an orchestrator reads it; remove the key"
DEPLOY_REFUSED = dict.fromkeys(("endpoint_mode", "placement", "rollback_config", "update_config"), _SWARM)
RESOURCES = {"limits", "reservations"}
RESERVATIONS_REFUSED = {
    "cpus": _LIMIT,
    "memory": _LIMIT,
    "generic_resources": _SWARM,
    "devices": "name devices of CDI under devices of the service, or gpus: all",
}
LIMITS = {"cpus", "memory", "pids"}
RESTART_POLICY = {"condition", "max_attempts"}
RESTART_POLICY_REFUSED = {"delay": "the daemon waits longer from one restart to the next", "window": _REMOVE}

DEPENDENCY = {"condition", "required", "restart"}
HEALTH = {"disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"}
PORT = {"target", "published", "host_ip", "protocol", "mode", "name", "app_protocol"}
MOUNT = {"type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency"}
BIND = {"propagation", "create_host_path", "selinux"}
VOLUME_OPTIONS = {"nocopy"}
VOLUME_OPTIONS_REFUSED = {
    "subpath": "mount the volume itself",
    "labels": "label the volume under the top-level volumes",
}
TMPFS = {"size", "mode"}
ATTACHMENT = {"aliases", "ipv4_address"}
ATTACHMENT_REFUSED = dict.fromkeys(
    (*("driver_opts", "gw_priority", "interface_name", "ipv6_address", "link_local_ips", "mac_address", "priority"),),
    _REMOVE,
)
BUILD = {"context", "dockerfile", "target", "args"}
_BUILD = "build the image with `windlass build`, and name it under image"
BUILD_REFUSED = dict.fromkeys(
    (
        *("additional_contexts", "cache_from", "cache_to", "dockerfile_inline", "entitlements", "extra_hosts"),
        *("isolation", "labels", "network", "no_cache", "platforms", "privileged", "provenance", "pull", "sbom"),
        *("secrets", "shm_size", "ssh", "tags", "ulimits"),
    ),
    _BUILD,
)
GRANT = {"source", "target", "mode"}
GRANT_REFUSED = dict.fromkeys(("uid", "gid"), "the file has the owner that it has on the host")
SECRET = {"file", "name"}
SECRET_REFUSED = dict.fromkeys(
    ("content", "environment", "external", "driver", "driver_opts", "labels", "template_driver"),
    "put the content into a file, and name that under file",
)
ULIMIT = {"soft", "hard"}
ENV_FILE = {"path", "required", "format"}
EXTENDS = {"service", "file"}
NETWORK = {"name", "external", "driver", "driver_opts", "internal", "ipam", "labels", "attachable"}
NETWORK_REFUSED = {"enable_ipv4": _REMOVE, "enable_ipv6": "name a subnet of IPv6 under ipam"}
IPAM = {"driver", "config"}
IPAM_REFUSED = {"options": _REMOVE}
POOL = {"subnet", "gateway"}
POOL_REFUSED = dict.fromkeys(("ip_range", "aux_addresses"), _REMOVE)
VOLUME = {"name", "external", "driver", "driver_opts", "labels"}
