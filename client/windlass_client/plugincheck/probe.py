"""Starts one plugin in a process of its own, asks it nonsense, stops it, and reports what came of that.

It is executed with a job as JSON, and writes results as lines of JSON to a descriptor of their own, since a plugin may
print. Whoever executes it kills it when it hangs, and knows by the last line in which step that was.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from windlass import discovery
from windlass.boot import INIT_TIMEOUT, STOP_TIMEOUT, Daemon
from windlass.config import loading as config
from windlass.config.loading import WINDLASS, Flags
from windlass.contracts.properties import GRPC_ADDRESS
from windlass.discovery import GROUP, Found
from windlass.errors import StartError, with_class
from windlass.plugin import Plugin, State
from windlass_client.closure import closure
from windlass_client.plugincheck import nonsense
from windlass_client.plugincheck.result import FAILED, NOTE, PASSED, Result

STEP = "step"
SLOW_IMPORT = 1.0
"""Seconds of the processor."""
LAG = 1.0
"""Seconds for which the loop may stand still: from then on a daemon's log names the plugin."""
INIT = 10
STOP = 5


class Reporter:
    """Writes lines."""

    def __init__(self, descriptor: int, uri: str) -> None:
        self._file = os.fdopen(descriptor, "w", buffering=1)
        self._uri = uri

    def step(self, name: str) -> None:
        """Say what is done next."""
        self._file.write(json.dumps({STEP: name}) + "\n")

    def result(self, check: str, result: str, detail: str = "") -> None:
        """Say what came of a check."""
        self._file.write(json.dumps(Result(self._uri, check, result, " ".join(detail.split())).to_json()) + "\n")


def main(job: dict[str, object], descriptor: int) -> None:
    """Check the plugin of a job: ``uri``, ``plugins`` and ``paths`` as in `target.Target`."""
    uri, plugins, paths = job["uri"], job["plugins"], job["paths"]
    assert isinstance(uri, str) and isinstance(plugins, dict) and isinstance(paths, list)
    sys.path[:0] = paths
    report = Reporter(descriptor, uri)
    report.step("import")
    found = _load(report, uri, plugins)
    if found is None or found.plugin is None:
        return
    with tempfile.TemporaryDirectory(prefix="windlass-check-") as folder:
        left: list[tuple[set[str], set[str]]] = []
        for number in range(2):
            # The second time shows whether it starts on what it has left, and what each start leaves open.
            if not asyncio.run(_live(report, found, plugins, Path(folder), number == 0)):
                return
            left.append((_threads(), _descriptors()))
        _compare(report, left)


def _listed(plugins: dict[str, str]) -> list[EntryPoint]:
    ours = [EntryPoint(name, value, GROUP) for name, value in plugins.items()]
    return [*ours, *(each for each in entry_points(group=GROUP) if each.name not in plugins)]


def _load(report: Reporter, uri: str, plugins: dict[str, str]) -> Found | None:
    before, started = set(sys.modules), time.process_time()
    (found,) = discovery.discover((), lambda group: [EntryPoint(uri, plugins[uri], GROUP)])
    took = time.process_time() - started
    if found.error is not None:
        report.result("import", FAILED, with_class(found.error))
        return None
    package = plugins[uri].partition(":")[0].partition(".")[0]
    others = sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {package, "windlass"})
    foreign = [name for name in others if name not in sys.stdlib_module_names and not name.startswith("_")]
    if took > SLOW_IMPORT:
        report.result("import", FAILED, f"took {took:.1f} s; import what it needs in init, not in the declaration")
    elif foreign:
        report.result("import", NOTE, f"imports {', '.join(foreign[:5])}; init is the place for that")
    else:
        report.result("import", PASSED, f"{1000 * took:.0f} ms")
    return found


async def _live(report: Reporter, found: Found, plugins: dict[str, str], folder: Path, first: bool) -> bool:
    """Start and stop the plugin, and ask it in between; return whether it started."""
    assert found.plugin is not None
    report.step("init" if first else "second start")
    daemon = _daemon(found.plugin, plugins, folder)
    watch = asyncio.create_task(_lag())
    try:
        await daemon.start()
        started = _is_started(report, daemon, found.plugin, first)
        if started and first:
            report.step("calls")
            await nonsense.ask(report, daemon, found.plugin)
    except StartError as error:
        report.result("init" if first else "second start", FAILED, str(error))
        started = False
    report.step("stop")
    begun = time.monotonic()
    await daemon.stop()
    took = time.monotonic() - begun
    await asyncio.sleep(0.1)  # or what has just held up the loop would not be measured
    watch.cancel()
    if first and started:
        report.result("stop", PASSED if took < STOP else FAILED, f"took {took:.2f} s")
        worst = max(lags) if lags else 0.0
        report.result("loop", PASSED if worst < LAG else FAILED, f"the loop stood still for {worst:.2f} s at most")
    return started


def _daemon(plugin: Plugin[object], plugins: dict[str, str], folder: Path) -> Daemon:
    """Return a daemon with the plugin and all that it requires, in scratch directories."""
    empty = folder / "config.toml"
    empty.write_text(f'version = 3\n[timeouts]\n"{INIT_TIMEOUT}" = "{INIT}s"\n"{STOP_TIMEOUT}" = "{STOP}s"\n')
    draft = config.read(empty, WINDLASS, Flags(str(folder / "root"), str(folder / "state"), str(folder / "s")))
    installed = discovery.discover((), lambda group: _listed(plugins))
    needed = {each.uri for each in closure([plugin], [each.plugin for each in installed if each.plugin])}
    taken = [each for each in installed if each.uri in needed and not _is_rival(each, plugin)]
    settings = draft.settle(taken)
    for path in (settings.root, settings.state):
        path.mkdir(mode=0o700, exist_ok=True)
    assert settings.properties[GRPC_ADDRESS]
    return Daemon(taken, settings)


def _is_rival(found: Found, plugin: Plugin[object]) -> bool:
    """Return whether two plugins are of one type: those that need a single one could not choose."""
    return found.plugin is not None and found.plugin.type == plugin.type and found.uri != plugin.uri


def _is_started(report: Reporter, daemon: Daemon, plugin: Plugin[object], first: bool) -> bool:
    (context,) = (each for each in daemon.of_type(plugin.type.uri) if each.uri == plugin.uri)
    record, check = context.record, "init" if first else "second start"
    if record.state == State.OK:
        report.result(check, PASSED, f"{1000 * record.seconds:.0f} ms")
        if first:
            name = plugin.type.contract.__name__ if plugin.type.contract is not None else "no methods"
            report.result("contract", PASSED, name)
        return True
    if record.state == State.SKIPPED and first:
        report.result(check, NOTE, f"it skips itself here: {record.message}")
        return False
    report.result(check, FAILED, record.message)
    return False


lags: list[float] = []


async def _lag() -> None:
    """Measure for how long the loop stands still."""
    while True:
        begun = time.monotonic()
        await asyncio.sleep(0.05)
        lags.append(time.monotonic() - begun - 0.05)


def _threads() -> set[str]:
    until = time.monotonic() + 2.0
    while time.monotonic() < until and threading.active_count() > 1:
        time.sleep(0.05)  # those that have been asked to end
    return {f"{each.name} ({each.ident})" for each in threading.enumerate()}


def _descriptors() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{each.name} ({each.readlink()})")
        except OSError:
            continue  # that of the listing
    return found


def _compare(report: Reporter, left: Sequence[tuple[set[str], set[str]]]) -> None:
    (threads, descriptors), (more_threads, more_descriptors) = left
    _grown(report, "threads", threads, more_threads)
    _grown(report, "descriptors", descriptors, more_descriptors)


def _grown(report: Reporter, check: str, before: Iterable[str], after: Iterable[str]) -> None:
    new = sorted(set(after) - set(before))
    if len(set(after)) > len(set(before)):
        report.result(check, FAILED, f"each start and stop leaves {len(new)}: {', '.join(new[:5])}")
    else:
        report.result(check, PASSED)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
