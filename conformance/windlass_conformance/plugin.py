"""The pytest plugin: options that name the objects to certify, and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass_conformance.report import PEER_CASES, Report

KINDS = ("snapshotter", "content", "differ", "metadata", "events", "runtime", "sandbox")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options that name the objects to certify; without any of them this plugin does nothing."""
    group = parser.getgroup("windlass", "conformance of plugins (windlass-conformance)")
    group.addoption("--address", metavar="SOCKET", help="certify what the containerd API at this socket offers")
    group.addoption(
        "--snapshotter",
        metavar="NAME|unix://SOCKET",
        help="certify a snapshotter, by name or by its socket",
    )
    group.addoption(
        "--content",
        metavar="unix://SOCKET",
        nargs="?",
        const="",
        help="certify a content store: that behind --address, or by its socket",
    )
    group.addoption(
        "--differ",
        metavar="unix://SOCKET",
        nargs="?",
        const="",
        help="certify a differ: that behind --address, or one by its socket that has the blobs of --address",
    )
    group.addoption(
        "--metadata",
        metavar="SNAPSHOTTER",
        nargs="?",
        const="overlayfs",
        help="certify leases and garbage collection behind --address, with snapshots of SNAPSHOTTER",
    )
    group.addoption("--events", action="store_true", default=None, help="certify the events behind --address")
    group.addoption(
        "--runtime",
        metavar="NAME|PATH",
        help="certify a runtime: by its name in the daemon at --address, or a shim by the path of its binary",
    )
    group.addoption(
        "--sandbox",
        metavar="CONTROLLER",
        nargs="?",
        const="shim",
        help="certify a sandbox controller of the daemon at --address, by its name",
    )
    group.addoption("--conformance-report", metavar="FILE", help="write what each case found to FILE, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and begin the report that is asked for."""
    config.addinivalue_line("markers", "local(reason): a promise that can only be kept without a socket between")
    path = config.getoption("--conformance-report")
    if path:
        config.pluginmanager.register(Report(Path(path), config), "windlass-conformance-report")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave only the cases of the given objects; report an error if none is given."""
    ours = [item for item in items if PEER_CASES in item.path.as_posix()]
    if not ours:
        return
    given = {kind for kind in KINDS if config.getoption(f"--{kind}") is not None}
    if not given:
        raise pytest.UsageError(
            "windlass_conformance: name what to certify, such as --snapshotter unix:///run/my.sock, "
            "or --address /run/containerd/containerd.sock --snapshotter overlayfs"
        )
    if config.getoption("--address") and "://" in (config.getoption("--snapshotter") or ""):
        raise pytest.UsageError(
            "windlass_conformance: with --address a snapshotter is named by what the daemon calls it"
        )
    needy = sorted(given & {"differ", "metadata", "events", "sandbox"})
    if needy and not config.getoption("--address"):
        raise pytest.UsageError(f"windlass_conformance: --{needy[0]} needs a daemon's --address")
    for item in ours:
        marker = item.get_closest_marker("local")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=str(marker.args[0])))
    dropped = [item for item in ours if kind_of(item) not in given]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def kind_of(item: pytest.Item) -> str:
    """Return what an item certifies, empty if it is not a case of a suite."""
    return str(getattr(getattr(item, "cls", None), "certifies", ""))
