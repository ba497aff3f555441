"""The program `windlass`: the command line, in a process that starts and ends sooner than others."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

OBJECTS = 50_000
"""New objects until the garbage collector looks at them: about as many as the imports of a command make."""


def main() -> NoReturn:
    """Run the command line and end the process with its exit code.

    The process ends without taking Python's objects apart, which takes longer than some commands do, and without the
    functions of `atexit`: a command has given back what it holds when it returns.
    """
    gc.set_threshold(OBJECTS)
    from windlass_client import cli

    code = cli.main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)
