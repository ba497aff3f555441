"""How a container's health is found out: what is asked for, over what its image says (docker's `HEALTHCHECK`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NONE, COMMAND, SHELL = "NONE", "CMD", "CMD-SHELL"
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class HealthCheck:
    """How a container's health is found out; times are in seconds."""

    command: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


@dataclass(frozen=True)
class HealthOptions:
    """What a user, a compose file or an image asks for; times are in seconds, and 0 and empty ask for nothing."""

    test: tuple[str, ...] = ()
    """As docker has it: `CMD` or `CMD-SHELL` first; `NONE` is none."""
    interval: float = 0
    timeout: float = 0
    start_period: float = 0
    start_interval: float = 0
    retries: int = 0

    def over(self, image: HealthOptions) -> HealthCheck | None:
        """Return the check of a container, None for none; what these do not say the image says, or docker's default."""
        kind, *words = self.test or image.test or (NONE,)
        if kind == NONE or not words:
            return None
        check = HealthCheck(("/bin/sh", "-c", *words) if kind == SHELL else tuple(words))
        return HealthCheck(
            check.command,
            self.interval or image.interval or check.interval,
            self.timeout or image.timeout or check.timeout,
            self.retries or image.retries or check.retries,
            self.start_period or image.start_period or check.start_period,
            self.start_interval or image.start_interval or check.start_interval,
        )


def of_image(document: Mapping[str, object]) -> HealthOptions:
    """Return what an image's `Healthcheck` asks for; one that makes no sense asks for nothing."""
    test = document.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) and "\0" not in word for word in test):
        return HealthOptions()
    if test and test[0] not in (NONE, COMMAND, SHELL):
        return HealthOptions()
    retries = document.get("Retries")
    return HealthOptions(
        tuple(test),
        _seconds(document.get("Interval")),
        _seconds(document.get("Timeout")),
        _seconds(document.get("StartPeriod")),
        _seconds(document.get("StartInterval")),
        retries if type(retries) is int and 0 < retries < NANOSECONDS else 0,
    )


def _seconds(value: object) -> float:
    return value / NANOSECONDS if type(value) is int and 0 < value < 1 << 63 else 0
