"""Registers the verifier that goes by a sign policy."""

from __future__ import annotations

from pathlib import Path

from windlass.config import durations
from windlass.contracts.verifiers import IMAGE_VERIFIER, ImageVerifier
from windlass.errors import InvalidArgument
from windlass.plugin import InitContext, Plugin
from windlass.records import dataclass


@dataclass(frozen=True)
class Config:
    """Configuration of ``io.containerd.image-verifier.v1.sign-policy``."""

    #: The policy; without the file every image is allowed.
    path: Path = Path("/etc/windlass/sign-policy.toml")
    #: Directories with hosts.toml files of the registries that signatures are fetched from, as for pulls.
    config_path: str = "/etc/containerd/certs.d:/etc/docker/certs.d"
    #: A docker config.json with credentials for them; empty for none.
    credentials: str = ""
    #: How long judging one image may take.
    timeout: str = "30s"


def init(context: InitContext) -> ImageVerifier:
    """Judge by the policy."""
    from windlass_sign_policy.registry import Finder
    from windlass_sign_policy.verifier import SignPolicy

    config = context.config(Config)
    finder = Finder(config.config_path, config.credentials)
    context.on_stop(finder.close)
    verifier = SignPolicy(config.path, finder.find, seconds(config))

    def configure() -> None:
        verifier.configure(context.config(Config).path, seconds(context.config(Config)))

    context.on_reload(("path", "timeout"), configure)
    return verifier


def seconds(config: Config) -> float:
    """Return how long judging one image may take. Raises InvalidArgument."""
    try:
        return durations.seconds(config.timeout)
    except ValueError as error:
        raise InvalidArgument(f"timeout: {error}") from None


PLUGIN = Plugin(IMAGE_VERIFIER, id="sign-policy", init=init, config=Config)
