"""What the configuration of transfers means."""

from __future__ import annotations

from windlass_transfer.plugin import Config, UnpackConfig


def test_a_differ_of_unpack_config_is_asked_first() -> None:
    """As in the configuration that containerd's users have for erofs."""
    wanted = [UnpackConfig("linux/amd64", "erofs", "erofs"), UnpackConfig(), UnpackConfig(differ="walking")]
    assert Config(unpack_config=wanted).differs_in_order() == ("erofs", "walking")
    assert Config(differs=("one", "two")).differs_in_order() == ("one", "two")
