"""What a container's labels ask for, and whether its task has to be started for that; pure (docs/containerd 3.20)."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.contracts.tasks import Process, Status
from windlass.errors import InvalidArgument

STATUS = "containerd.io/restart.status"
POLICY = "containerd.io/restart.policy"
COUNT = "containerd.io/restart.count"
LOG_URI = "containerd.io/restart.loguri"
EXPLICITLY_STOPPED = "containerd.io/restart.explicitly-stopped"

WANT_RUNNING = "running"
WANT_STOPPED = "stopped"
TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
"""What Go's ParseBool takes for true."""


def parse_policy(text: str) -> tuple[str, int]:
    """Return a policy's name and how often it restarts, 0 for ever.

    Raises InvalidArgument for an unknown name, and for a number that belongs to another policy than on-failure.
    """
    name, colon, number = text.partition(":")
    if name == "on-failure" and (not colon or (number.isascii() and number.isdigit())):
        return name, int(number or 0)
    if not colon and name in ("", "no", "always", "unless-stopped"):
        return name or "always", 0
    raise InvalidArgument(
        f"restart policy {text[:80]!r} is not known; use no, always, unless-stopped, on-failure or on-failure:N"
    )


def wants_restart(labels: Mapping[str, str], process: Process | None) -> bool:
    """Return whether the policy lets a task be started that is not running; None means that there is no task.

    Raises InvalidArgument for a policy that does not parse.
    """
    name, limit = parse_policy(labels.get(POLICY, ""))
    if name == "on-failure":
        failed = process is not None and process.exit_status != 0
        return failed and (limit == 0 or _below(labels.get(COUNT, "0"), limit))
    if name == "unless-stopped":
        return labels.get(EXPLICITLY_STOPPED) not in TRUE
    return name == "always"


def next_count(labels: Mapping[str, str]) -> str:
    """Return the value of the count label for one restart more."""
    text = labels.get(COUNT, "0")
    return str(int(text) + 1) if _is_number(text) else "1"


def is_settled(wanted: str, process: Process | None) -> bool:
    """Return whether a task is in the state that is wanted, or in one that only its owner decides about."""
    status = Status.STOPPED if process is None else process.status
    if wanted == WANT_RUNNING:
        return status in (Status.RUNNING, Status.PAUSED, Status.PAUSING)
    # No task is as good as a stopped one.
    return wanted != WANT_STOPPED or status == Status.STOPPED


def _below(count: str, limit: int) -> bool:
    return _is_number(count) and int(count) < limit


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
