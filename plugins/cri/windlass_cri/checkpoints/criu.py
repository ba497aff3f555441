"""Whether containers can be checkpointed: criu is there, new enough, and not switched off (docs/containerd 5.4)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from windlass.errors import Unknown

OLDEST = (3, 16)
TIMEOUT = 20.0
_VERSION = re.compile(r"^Version: (\d+)\.(\d+)", re.MULTILINE)


def check(enabled: bool) -> None:
    """Raise Unknown, saying why, where containers cannot be checkpointed. Blocks for milliseconds."""
    if not enabled:
        raise Unknown("criu support is disabled by configuration; enable_criu is false")
    path = shutil.which("criu")
    if path is None:
        raise Unknown(f"criu binary not found in {os.environ.get('PATH', os.defpath)}; install criu")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unknown(f"failed to retrieve criu version: {path}: {error}") from error
    match = _VERSION.search(done.stdout)
    if match is None:
        raise Unknown(f"failed to retrieve criu version: {path} said {(done.stdout + done.stderr)[:200]!r}")
    if (int(match[1]), int(match[2])) < OLDEST:
        raise Unknown(f"{path} is version {match[1]}.{match[2]}; checkpoints need at least {OLDEST[0]}.{OLDEST[1]}")
