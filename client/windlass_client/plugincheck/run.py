"""Checks every plugin of a package, each in a process of its own that may hang or die."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from windlass_client.plugincheck import suites
from windlass_client.plugincheck.probe import STEP
from windlass_client.plugincheck.result import FAILED, Result
from windlass_client.plugincheck.target import Target

PATIENCE = 120.0


def check(target: Target, with_suite: bool = True) -> Iterator[Result]:
    """Yield the results of all checks, as they come."""
    for uri in sorted(target.plugins):
        yield from probe(target, uri)
    if with_suite:
        yield from suites.run(target)


def probe(target: Target, uri: str, patience: float = PATIENCE) -> Iterator[Result]:
    """Yield what a process finds that starts one plugin; if it does not end by itself, that is a result too."""
    job = json.dumps({"uri": uri, "plugins": target.plugins, "paths": list(target.paths)})
    with tempfile.TemporaryFile() as lines, tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", "windlass_client.plugincheck.probe", job, str(lines.fileno())]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, pass_fds=[lines.fileno()]
        )
        try:
            code: int | None = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        step = "start"
        lines.seek(0)
        for line in lines:
            found = json.loads(line)
            if STEP in found:
                step = found[STEP]
            else:
                yield Result(**found)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        if code is None:
            yield Result(uri, step, FAILED, f"did not end within {patience:g} s")
        elif code:
            last = said[-1] if said else ""
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            yield Result(uri, step, FAILED, f"the process ended with {how}: {last}".rstrip(": "))
