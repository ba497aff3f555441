"""`windlass-hook`: what the OCI runtime executes when a container's namespaces are made, and when it has been deleted.

    windlass-hook attach|detach DIRECTORY < state

It is executed for each start of each container, so it imports no asyncio, no click and no grpc. A failure is one line
on standard error, which the runtime passes on, and exit code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from windlass.errors import Error
from windlass_client.networks import record
from windlass_client.networks.attach import attach, detach


def main() -> int:
    """Run the command line and return its exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("attach", "detach"):
        return _fail("usage: windlass-hook attach|detach DIRECTORY, with the container's state as standard input")
    try:
        _run(sys.argv[1], Path(sys.argv[2]))
    except Error as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    return 0


def _run(step: str, directory: Path) -> None:
    asked = record.read(directory)
    if asked is None:
        return  # it was removed meanwhile: who removed it has detached it
    if step == "detach":
        detach(directory, asked)
    else:
        attach(directory, asked, json.load(sys.stdin)["pid"])


def _fail(message: str) -> int:
    sys.stderr.write(f"{record.HOOK}: {' '.join(message.split())}\n")
    return 1
