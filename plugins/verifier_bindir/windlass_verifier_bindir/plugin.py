"""Registers the verifier that asks the programs of a directory."""

from __future__ import annotations

from pathlib import Path

from windlass.config import durations
from windlass.contracts.verifiers import IMAGE_VERIFIER, ImageVerifier
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.image-verifier.v1.bindir``."""

    #: Directory with programs; without it, or with none in it, every image is allowed.
    bin_dir: Path = Path("/opt/containerd/image-verifier/bin")
    #: Programs that are asked at most, the first by name; -1 is all of them.
    max_verifiers: int = 10
    #: How long each may take.
    per_verifier_timeout: str = "10s"


def init(context: InitContext) -> ImageVerifier:
    """Judge by what the programs say."""
    from windlass_verifier_bindir.verifier import BinDir

    verifier = BinDir(*settings(context.config(Config)))
    context.on_reload(
        ("bin_dir", "max_verifiers", "per_verifier_timeout"),
        lambda: verifier.configure(*settings(context.config(Config))),
    )
    return verifier


def settings(config: Config) -> tuple[Path, int, float]:
    """Return directory, most programs, and seconds for each. Raises InvalidArgument."""
    try:
        return config.bin_dir, config.max_verifiers, durations.seconds(config.per_verifier_timeout)
    except ValueError as error:
        raise InvalidArgument(f"per_verifier_timeout: {error}") from None


PLUGIN = Plugin(IMAGE_VERIFIER, id="bindir", init=init, config=Config)
