"""Health checks: what a user says goes over what the image says, and that over docker's defaults."""

from __future__ import annotations

import pytest

from windlass_client.lifecycle.healthcheck import HealthCheck, HealthOptions, of_image

IMAGE = {"Test": ["CMD-SHELL", "curl x | grep y"], "Interval": 5_000_000_000, "Retries": 9}


@pytest.mark.parametrize(
    ("asked", "image", "check"),
    [
        (HealthOptions(), {}, None),
        (HealthOptions(), IMAGE, HealthCheck(("/bin/sh", "-c", "curl x | grep y"), 5.0, retries=9)),
        (HealthOptions(("NONE",)), IMAGE, None),
        (HealthOptions(), {"Test": ["NONE"]}, None),
        (HealthOptions(interval=7), IMAGE, HealthCheck(("/bin/sh", "-c", "curl x | grep y"), 7.0, retries=9)),
        (HealthOptions(("CMD", "ready")), IMAGE, HealthCheck(("ready",), 5.0, retries=9)),
        (HealthOptions(("CMD", "ready"), retries=1), {}, HealthCheck(("ready",), retries=1)),
        (HealthOptions(interval=7), {}, None),
        (HealthOptions(), {"Test": ["CMD"]}, None),
    ],
)
def test_each_word_has_its_place(asked: HealthOptions, image: dict[str, object], check: HealthCheck | None) -> None:
    assert asked.over(of_image(image)) == check


@pytest.mark.parametrize(
    "image",
    [
        {"Test": "curl"},
        {"Test": [1]},
        {"Test": ["a\0b"]},
        {"Test": ["SOMETHING", "else"]},
        {"Test": {}, "Interval": "5s"},
        {"Interval": -5, "Timeout": True, "Retries": 1 << 70, "StartPeriod": 1 << 70},
    ],
)
def test_nonsense_of_an_image_asks_for_nothing(image: dict[str, object]) -> None:
    """containerd and docker's build do not look at it, so it is no reason not to run the image."""
    assert of_image(image) == HealthOptions()
