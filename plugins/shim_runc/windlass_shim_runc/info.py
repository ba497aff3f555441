"""``-info``: what the runtime behind the shim can do, as a message (docs/containerd 4.5)."""

from __future__ import annotations

import subprocess

from windlass import __version__
from windlass.errors import Error
from windlass_api.ttrpc.framing import Malformed
from windlass_shim_runc import messages
from windlass_shim_runc.options import runc_options

NAME = "io.containerd.windlass.v1"
FEATURES = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
TIMEOUT = 5.0


class RuntimeVersion(messages.Message):
    """containerd.types.RuntimeVersion."""

    version = ""
    revision = ""


class RuntimeInfo(messages.Message):
    """containerd.types.RuntimeInfo."""

    name = ""
    version = RuntimeVersion()
    options = messages.AnyMessage()
    features = messages.AnyMessage()
    annotations: tuple[messages.KeyValue, ...] = (messages.KeyValue(),)


def describe(data: bytes, name: str = NAME) -> bytes:
    """Return an encoded RuntimeInfo of that name; ``data`` are options in an Any, or nothing. Raises ValueError."""
    try:
        options = messages.decode(messages.AnyMessage, data)
        program = runc_options(options).binary_name or "runc"
    except (Malformed, Error) as error:
        raise ValueError(f"standard input has no valid options: {error}") from error
    answer = RuntimeInfo(name=name, version=RuntimeVersion(version=__version__), options=options)
    found = features(program)
    if found:
        answer.features = messages.AnyMessage(type_url=FEATURES, value=found)
    return answer.encode()


def features(program: str) -> bytes:
    """Return what the OCI runtime says of itself as JSON, nothing when it does not know the question."""
    try:
        done = subprocess.run([program, "features"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if not done.returncode else b""
