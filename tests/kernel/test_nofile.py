"""The limit of open descriptors: raised for ourselves, as it was for what is executed."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, subprocess
from windlass.process import nofile
assert nofile.limited(["true"]) == ["true"], "as long as it has not been raised"
assert nofile.found_limit() == 300
nofile.raise_limit()
nofile.raise_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (700, 700)
assert nofile.found_limit() == 300
ask = ["sh", "-c", "ulimit -Sn; ulimit -Hn"]
print(subprocess.check_output(nofile.limited(ask)).decode())
with nofile.Found():
    print(subprocess.check_output(ask).decode())
print(subprocess.check_output(ask).decode())
"""


def test_what_is_executed_gets_the_limit_that_was_found() -> None:
    """With threads by another command, without by a context; our own is the hard one before and after."""
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 300; ulimit -Hn 700; exec "$@"', "sh", sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["300", "700", "300", "700", "700", "700"], done.stderr
