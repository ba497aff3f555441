"""The suites: the package's own tests, or those of windlass-conformance through a socket."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from windlass_client.plugincheck.result import FAILED, NOTE, PASSED, Result
from windlass_client.plugincheck.target import Target

PATIENCE = 900.0
SERVED = {"io.containerd.snapshotter.v1": "--snapshotter", "io.containerd.content.v1": "--content"}
"""The options by which a plugin of a type is certified through its socket."""
SERVE = "import sys; from windlass_client.cli import main; sys.exit(main())"


def run(target: Target) -> Iterator[Result]:
    """Yield the results of the suites of a package."""
    if importlib.util.find_spec("windlass_conformance") is None:
        yield Result(target.name, "suite", NOTE, "is not installed; pip install windlass-conformance")
    elif target.tests is not None:
        yield _tests(target, target.tests)
    else:
        for uri in target.plugins:
            option = SERVED.get(uri.rpartition(".")[0])
            if option is not None and os.geteuid() == 0:
                yield _served(uri, option)
            else:
                reason = "give the package's directory, whose tests run it" if option is None else "run it as root"
                yield Result(uri, "suite", NOTE, f"was not run: {reason}")


def _tests(target: Target, tests: Path) -> Result:
    with tempfile.TemporaryDirectory(prefix="windlass-check-") as folder:
        report = Path(folder) / "report.json"
        options = ["-q", "-p", "no:cacheprovider", "--maxfail=5", f"--conformance-report={report}", str(tests)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*target.paths, *_inherited()])}
        code, output = _pytest(options, environment, tests.parent)
        return _verdict(target.name, code, output, report)


def _served(uri: str, option: str) -> Result:
    """Run the suite of a plugin's contract on it, behind a socket."""
    with tempfile.TemporaryDirectory(prefix="wlc") as folder:
        address, report = Path(folder) / "s", Path(folder) / "report.json"
        command = [sys.executable, "-c", SERVE, "plugin", "serve", uri, "--address", str(address), "--root", folder]
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if not _answers(server, address):
                text = (Path(folder) / "log").read_text().strip()
                return Result(uri, "suite", FAILED, f"it cannot be served: {text.splitlines()[-1] if text else ''}")
            options = ["-q", "-p", "no:cacheprovider", "--maxfail=5", "--pyargs", "windlass_conformance"]
            options += [option, f"unix://{address}", f"--conformance-report={report}"]
            code, output = _pytest(options, dict(os.environ), Path(folder))
            return _verdict(uri, code, output, report)
        finally:
            server.terminate()
            server.wait(20)


def _answers(server: subprocess.Popen[bytes], address: Path) -> bool:
    until = time.monotonic() + 30
    while not address.exists():
        if server.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _pytest(options: list[str], environment: dict[str, str], folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd=folder)
    except subprocess.TimeoutExpired:
        return -1, f"did not end within {PATIENCE:g} s"
    return done.returncode, done.stdout + done.stderr


def _verdict(name: str, code: int, output: str, report: Path) -> Result:
    """Read the report of a run; without one the last line of the output is the reason."""
    last = output.strip().splitlines()[-1].strip("= ") if output.strip() else "no output"
    try:
        found = json.loads(report.read_text())
    except (OSError, ValueError):
        return Result(name, "suite", FAILED, last)
    bad = [case for case in found["cases"] if case["outcome"] == "failed"]
    summary = ", ".join(f"{count} {outcome}" for outcome, count in found["summary"].items() if count)
    if bad:
        return Result(name, "suite", FAILED, f"{summary}; {bad[0]['name']}: {bad[0]['reason']}")
    if code:
        return Result(name, "suite", FAILED, last)
    if not found["cases"]:
        return Result(name, "suite", NOTE, f"its tests run no suite: {last}")
    return Result(name, "suite", PASSED, f"{summary} of the contract's cases")


def _inherited() -> list[str]:
    return [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
