"""Restart policies, as labels of containerd's restart monitor, which `windlassd` has too (docs/containerd 3.20).

The monitor looks every ten seconds. A container that a client stops stays stopped until a client starts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from windlass.errors import InvalidArgument

STATUS = "containerd.io/restart.status"
POLICY = "containerd.io/restart.policy"
COUNT = "containerd.io/restart.count"
LOG_URI = "containerd.io/restart.loguri"
EXPLICITLY_STOPPED = "containerd.io/restart.explicitly-stopped"
NEVER = ("", "no")
FORGOTTEN: Mapping[str, str] = {STATUS: "", POLICY: "", LOG_URI: "", COUNT: ""}
"""The labels of a container that the monitor is to leave alone, while it runs and afterwards."""
KNOWN = re.compile(r"no|always|unless-stopped|on-failure(:[0-9]{1,9})?")


def check(policy: str) -> str:
    """Return a policy. Raises InvalidArgument for one that is not known."""
    if policy and not KNOWN.fullmatch(policy):
        raise InvalidArgument(
            f"restart policy {policy[:40]!r} is not known; use no, always, unless-stopped, on-failure or on-failure:N"
        )
    return "" if policy in NEVER else policy


def started(policy: str, uri: str, counted: bool = False) -> Mapping[str, str]:
    """Return the labels of a container that is started; ``counted`` takes back what the monitor has counted."""
    if policy in NEVER:
        return {}
    labels = {STATUS: "running", POLICY: policy, LOG_URI: uri}
    return {**labels, COUNT: "", EXPLICITLY_STOPPED: ""} if counted else labels


def held() -> Mapping[str, str]:
    """Return the labels of a container that is about to be stopped: its policy comes back when it is started.

    Not the status yet: with that, the monitor would kill it before its time to stop has passed.
    """
    return {POLICY: "no", EXPLICITLY_STOPPED: "true"}


def stopped() -> Mapping[str, str]:
    """Return the labels of a container that is to stay stopped."""
    return {STATUS: "stopped", POLICY: "no", EXPLICITLY_STOPPED: "true"}
