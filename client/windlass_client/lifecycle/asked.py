"""What a container was asked to be, from the labels of its record and from its spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from windlass.contracts.containers import Container
from windlass.errors import InvalidArgument
from windlass_client import labels
from windlass_client.lifecycle.healthcheck import HealthCheck
from windlass_client.logs import keeping
from windlass_client.logs.keeping import LogOptions
from windlass_local.launch import STOP_SIGNAL
from windlass_oci.payloads import spec_of

STDIN = "io.windlass.stdin"
"""``once``: standard input ends with the first client; ``open``: it stays open for others."""
LOG_URI = "io.windlass.log-uri"
"""Where output goes instead of a log of ours."""
TIMEOUT = 10.0


@dataclass(frozen=True)
class StopOptions:
    """How a container is stopped: a signal, and seconds until it is killed; empty and None are the image's and 10."""

    signal: str = ""
    timeout: float | None = None


@dataclass(frozen=True)
class Asked:
    """What `run` or `create` was asked; for a container of another client, what is like it."""

    id: str
    name: str
    terminal: bool = False
    stdin: str = ""
    log: LogOptions | None = None
    """None for a container of another client, and with a log URI."""
    log_uri: str = ""
    restart: str = ""
    remove: bool = False
    stop: StopOptions = StopOptions()
    health: HealthCheck | None = None

    def labels(self) -> Mapping[str, str]:
        """Return the labels that say so."""
        found = {
            labels.NAME: self.name if self.name != self.id else "",
            STDIN: self.stdin,
            labels.LOG: _json(keeping.describe(self.log)) if self.log else "",
            LOG_URI: self.log_uri,
            labels.RESTART: self.restart,
            labels.REMOVE: "true" if self.remove else "",
            labels.STOP: _json(self.stop.__dict__) if self.stop != StopOptions() else "",
            labels.HEALTH: health_label(self.health),
        }
        return {key: value for key, value in found.items() if value}


def of(container: Container) -> Asked:
    """Return what a record says. Raises InvalidArgument for labels that another client has changed."""
    held = container.labels
    try:
        log, stop, health = (_object(held.get(key, "")) for key in (labels.LOG, labels.STOP, labels.HEALTH))
        return Asked(
            container.id,
            held.get(labels.NAME) or container.id,
            terminal=has_terminal(container),
            stdin=held.get(STDIN, ""),
            log=keeping.restored(log) if log else None,
            log_uri=held.get(LOG_URI, ""),
            restart=held.get(labels.RESTART, ""),
            remove=held.get(labels.REMOVE) == "true",
            stop=_stop(stop, held.get(STOP_SIGNAL, "")),
            health=_health(health) if health else None,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidArgument(
            f"container {container.id} has labels of windlass that were changed ({error}); remove it and run it again"
        ) from None


def health_label(check: HealthCheck | None) -> str:
    """Return the value of `labels.HEALTH`."""
    return _json(check.__dict__) if check else ""


def has_terminal(container: Container) -> bool:
    """Return whether a container's first process has a terminal; of a spec that is none, no."""
    try:
        return bool(spec_of(container)["process"].get("terminal"))
    except (InvalidArgument, KeyError, TypeError, AttributeError):
        return False


def _json(document: Mapping[str, object]) -> str:
    return json.dumps({key: value for key, value in document.items() if value is not None}, separators=(",", ":"))


def _object(text: str) -> dict[str, object]:
    found = json.loads(text) if text else {}
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _stop(document: Mapping[str, object], image: str) -> StopOptions:
    timeout = document.get("timeout")
    return StopOptions(str(document.get("signal") or image), float(str(timeout)) if timeout is not None else None)


def _health(document: Mapping[str, object]) -> HealthCheck:
    command = document["command"]
    if not isinstance(command, list):
        raise TypeError("health command is not a list")
    times = {name: float(str(document[name])) for name in ("interval", "timeout", "start_period", "start_interval")}
    return HealthCheck(tuple(map(str, command)), retries=int(str(document["retries"])), **times)
