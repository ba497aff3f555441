"""Reads a service: its keys in their long form, as what a container is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from windlass.errors import Unimplemented
from windlass_client.compose import dotenv, keys, parts
from windlass_client.compose.fields import Fields
from windlass_client.compose.model import DEFAULT_NETWORK, Attachment, Mount, Service
from windlass_client.compose.values import Section, is_null, wrong

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d{1,6})?")
PULL_POLICIES = ("", "always", "never", "missing", "if_not_present", "build")
NETWORK_MODE = re.compile(r"none|host|bridge|(service|container):.+")
GRANTS = {"secrets": "/run/secrets/", "configs": "/"}
"""Where secrets and configs are in a container, if a service does not say."""


class Reader:
    """Reads the services of a project."""

    def __init__(self, directory: Path, variables: Mapping[str, str], files: Mapping[str, Mapping[str, str]]) -> None:
        """``files`` are the paths of secrets and of configs, by these words."""
        self._directory = directory
        self._variables = variables
        self._files = files

    def service(self, name: str, value: Section) -> Service:
        """Return a service. Raises InvalidArgument, Unimplemented."""
        path = f"services.{name}"
        if not NAME.fullmatch(name):
            raise wrong(
                value, path, "a service's name has letters, digits and _ . - only, and begins with none of these"
            )
        given = parts.fields(value, path, keys.SERVICE, keys.SERVICE_REFUSED)
        deploy = parts.nested(given, "deploy", keys.DEPLOY, keys.DEPLOY_REFUSED)
        if "image" not in given and "build" not in given:
            raise wrong(value, path, "a service needs an image; name it under image")
        return Service(
            name=name,
            at=value.at,
            image=given.text("image"),
            build=parts.build(given, self._directory),
            pull_policy=given.choice("pull_policy", PULL_POLICIES, ""),
            platform=given.text("platform"),
            container_name=self._container_name(given),
            replicas=self._replicas(given, deploy),
            profiles=given.texts("profiles"),
            depends_on=parts.dependencies(given),
            command=given.command("command"),
            entrypoint=given.command("entrypoint"),
            environment=self._environment(given),
            labels=given.mapping("labels"),
            user=given.text("user"),
            group_add=given.texts("group_add"),
            working_dir=given.text("working_dir"),
            hostname=given.text("hostname"),
            domainname=given.text("domainname"),
            networks=self._networks(given),
            network_mode=self._network_mode(given),
            ports=parts.ports(given),
            dns=given.texts("dns"),
            dns_search=given.texts("dns_search"),
            dns_opt=given.texts("dns_opt"),
            extra_hosts=tuple(self._hosts(given)),
            mounts=(*parts.mounts(given, self._directory), *self._granted(given)),
            read_only=given.flag("read_only"),
            cap_add=given.texts("cap_add"),
            cap_drop=given.texts("cap_drop"),
            security_opt=given.texts("security_opt"),
            privileged=given.flag("privileged"),
            devices=given.texts("devices"),
            gpus=given.choice("gpus", ("all",), "") if "gpus" in given else "",
            sysctls=given.mapping("sysctls"),
            ulimits=dict(parts.ulimits(given)),
            shm_size=given.size("shm_size"),
            oom_score=given.number("oom_score_adj", least=-1000, most=1000) if "oom_score_adj" in given else None,
            limits=parts.limits(given, deploy),
            restart=self._restart(given, deploy),
            health=parts.health(given),
            stop_signal=given.text("stop_signal"),
            stop_grace_period=given.duration("stop_grace_period", 10),
            terminal=given.flag("tty"),
            stdin=given.flag("stdin_open"),
            init=given.flag("init"),
            runtime=given.text("runtime"),
        )

    def _environment(self, given: Fields) -> dict[str, str]:
        found: dict[str, str] = {}
        for path, value in given.sections("env_file"):
            each = parts.fields(value, path, keys.ENV_FILE)
            file = Path(parts.located(each.text("path"), self._directory))
            if each.text("format") not in ("", "raw"):
                raise wrong(value, path, f"format {each.text('format')[:40]!r} is not known; raw is")
            if not file.exists():
                if each.flag("required", default=True):
                    raise wrong(value, path, f"{file} does not exist; create it, or set required: false")
                continue
            found |= _raw(file) if "format" in each else dotenv.read(file, self._variables)
        for key, text in given.variables("environment").items():
            if text is not None:
                found[key] = text
            elif key in self._variables:
                found[key] = self._variables[key]
        return found

    def _container_name(self, given: Fields) -> str:
        name = given.text("container_name")
        if name and not NAME.fullmatch(name):
            raise wrong(given.entry("container_name"), given.at("container_name"), f"{name[:80]!r} is not a valid name")
        return name

    def _replicas(self, given: Fields, deploy: Fields) -> int:
        if deploy.choice("mode", ("replicated", "global"), "replicated") == "global":
            raise Unimplemented(
                f"{deploy.entry('mode').at}: {deploy.at('mode')}: 'global' needs a cluster; set replicas"
            )
        found = given.number("scale", -1, most=1000) if "scale" in given else deploy.number("replicas", 1, most=1000)
        if found > 1 and "container_name" in given:
            entry, at = given.entry("container_name"), given.at("container_name")
            raise wrong(entry, at, f"{found} containers cannot have one name; remove container_name, or set scale: 1")
        return found

    def _networks(self, given: Fields) -> Mapping[str, Attachment]:
        if "network_mode" in given:
            if "networks" in given:
                entry, at = given.entry("network_mode"), given.at("network_mode")
                raise wrong(entry, at, "network_mode and networks exclude each other; remove one")
            return {}
        return parts.networks(given) or {DEFAULT_NETWORK: Attachment()}

    def _network_mode(self, given: Fields) -> str:
        mode = given.text("network_mode")
        if mode and not NETWORK_MODE.fullmatch(mode):
            entry, at = given.entry("network_mode"), given.at("network_mode")
            raise wrong(
                entry, at, f"{mode[:40]!r} is not known; known are none, host, bridge, service:NAME, container:NAME"
            )
        return mode

    def _hosts(self, given: Fields) -> Iterator[str]:
        for text in given.texts("extra_hosts"):
            host, sign, address = text.partition("=" if "=" in text else ":")
            if not (host and sign and address):
                entry, at = given.entry("extra_hosts"), given.at("extra_hosts")
                raise wrong(entry, at, f"{text[:80]!r} is not of the form HOST=ADDRESS")
            yield f"{host}:{address.strip('[]')}"

    def _granted(self, given: Fields) -> Iterator[Mount]:
        for kind, folder in GRANTS.items():
            for path, value in given.sections(kind):
                each = parts.fields(value, path, keys.GRANT, keys.GRANT_REFUSED)
                source = each.text("source")
                if source not in self._files[kind]:
                    raise wrong(value, path, f"{source[:80]!r} is not under the top-level {kind}; add it there")
                target = each.text("target", source)
                yield Mount(
                    "bind",
                    self._files[kind][source],
                    target if target.startswith("/") else folder + target,
                    read_only=True,
                    create=False,
                )

    def _restart(self, given: Fields, deploy: Fields) -> str:
        policy = parts.nested(deploy, "restart_policy", keys.RESTART_POLICY, keys.RESTART_POLICY_REFUSED)
        if "restart" in given:
            found = given.text("restart")
            if not RESTART.fullmatch(found):
                known = "no, always, unless-stopped, on-failure[:TIMES]"
                raise wrong(
                    given.entry("restart"), given.at("restart"), f"{found[:40]!r} is not known; known are {known}"
                )
            return found
        if is_null(policy.value) or not policy.value.entries:
            return "no"
        condition = policy.choice("condition", ("none", "on-failure", "any"), "any")
        attempts = policy.number("max_attempts")
        return {"none": "no", "any": "always"}.get(condition, f"on-failure:{attempts}" if attempts else "on-failure")


def _raw(file: Path) -> dict[str, str]:
    """Return the variables of a file whose values are as they stand."""
    lines = (line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#"))
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
