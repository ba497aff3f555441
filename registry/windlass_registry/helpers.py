"""Docker's credential helpers: programs that keep passwords, such as `docker-credential-pass`."""

from __future__ import annotations

import json
import re
import subprocess

from windlass.contracts.transfer import Credentials
from windlass.errors import FailedPrecondition

LIMIT = 1 << 20
TIMEOUT = 30.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def get(helper: str, key: str, place: str) -> Credentials | None:
    """Return what a helper has for a registry; ``place`` is the file that names it. Raises FailedPrecondition."""
    command = f"docker-credential-{helper}"
    done = _execute(helper, "get", key, place)
    text = done.stdout[:LIMIT].decode(errors="replace")
    if done.returncode:
        if "credentials not found" in text:
            return None
        raise _failed(command, text)
    return _answer(text, command)


def run(helper: str, verb: str, text: str, place: str) -> None:
    """Let a helper ``store`` or ``erase``. Raises FailedPrecondition."""
    done = _execute(helper, verb, text, place)
    if done.returncode:
        said = (done.stdout or done.stderr)[:LIMIT].decode(errors="replace")
        raise _failed(f"docker-credential-{helper}", said)


def _execute(helper: str, verb: str, text: str, place: str) -> subprocess.CompletedProcess[bytes]:
    if not NAME.fullmatch(helper):
        raise FailedPrecondition(f"{place} names a helper {helper[:80]!r}, which is not the name of a program")
    command = f"docker-credential-{helper}"
    try:
        return subprocess.run([command, verb], input=text.encode(), capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise FailedPrecondition(f"{command}, which {place} names, is not installed") from None
    except subprocess.TimeoutExpired:
        raise FailedPrecondition(f"{command} did not end within {TIMEOUT:.0f} s") from None


def _failed(command: str, said: str) -> FailedPrecondition:
    return FailedPrecondition(f"{command} failed: {' '.join(said.split())[:200]}")


def _answer(text: str, command: str) -> Credentials | None:
    try:
        document = json.loads(text)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise FailedPrecondition(f"{command} did not answer with credentials") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise FailedPrecondition(f"{command} did not answer with credentials")
    return Credentials("" if username == "<token>" else username, secret)
