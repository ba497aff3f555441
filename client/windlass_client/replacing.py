"""Files that commands write, which appear under their names when they are whole."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replaced(path: str) -> Iterator[IO[bytes]]:
    """Give a file that takes its name only when it is whole; - is standard output."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        with Path(path).open("wb") as file:
            yield file
        return
    directory = Path(path).absolute().parent
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".windlass-export-", delete=False) as file:
        try:
            yield file.file
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
