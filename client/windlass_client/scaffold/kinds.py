"""The kinds of plugins that can be begun: their types, the packages they stand on, and the suites that judge them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from windlass.errors import InvalidArgument


@dataclass(frozen=True)
class Kind:
    """A kind of plugin; its templates are in a folder of its name."""

    name: str
    uri: str
    purpose: str
    dependencies: tuple[str, ...] = ()
    suite: str = ""
    """The class of the suite, ``module:class``; empty if there is none."""
    scripts: bool = False
    """Whether it brings a program."""
    test_dependencies: tuple[str, ...] = ()


KINDS = (
    Kind(
        "snapshotter",
        "io.containerd.snapshotter.v1",
        "keeps filesystems of images and containers, each snapshot as a full copy of its parent",
        ("windlass-storage",),
        "windlass_conformance.snapshots:SnapshotterSuite",
    ),
    Kind(
        "content",
        "io.containerd.content.v1",
        "keeps blobs by their digests, in files",
        ("windlass-content",),
        "windlass_conformance.content:ContentSuite",
    ),
    Kind(
        "differ",
        "io.containerd.differ.v1",
        "applies layers to mounts, and makes layers of mounts",
        ("windlass-diff",),
        "windlass_conformance.differs:DifferSuite",
        test_dependencies=("windlass-zygote", "windlass-content"),
    ),
    Kind(
        "metadata",
        "io.containerd.metadata.v1",
        "gives each namespace its view of images, containers, leases and stores",
        ("windlass-metadata",),
        "windlass_conformance.metadata:MetadataSuite",
        test_dependencies=("windlass-content", "windlass-events", "windlass-snapshot-native"),
    ),
    Kind(
        "events",
        "io.containerd.event.v1",
        "brings each event to each subscriber",
        ("windlass-events",),
        "windlass_conformance.events:ExchangeSuite",
    ),
    Kind(
        "runtime",
        "io.windlass.shim.v1",
        "keeps containers: a shim of its own name, which the zygote forks and other daemons execute",
        ("windlass-shim-runc",),
        "windlass_conformance.runtimes:RuntimeSuite",
        scripts=True,
    ),
    Kind(
        "sandbox",
        "io.containerd.sandbox.controller.v1",
        "runs sandboxes, each a process that sleeps",
        (),
        "windlass_conformance.sandbox_controllers:SandboxControllerSuite",
    ),
    Kind(
        "mount-handler",
        "io.containerd.mount-handler.v1",
        "makes mounts of a type of its own",
        ("windlass-linux", "windlass-storage"),
        "windlass_conformance.mount_handlers:MountHandlerSuite",
    ),
    Kind("hook", "io.windlass.hook.v1", "takes part in steps: admits images and changes specs"),
    Kind("verifier", "io.containerd.image-verifier.v1", "judges images before anything of them is used"),
)


def kind_of(type: str) -> Kind:
    """Return a kind by its name or by the URI of its plugin type. Raises InvalidArgument."""
    for kind in KINDS:
        if type in (kind.name, kind.uri):
            return kind
    names = [kind.name for kind in KINDS]
    near = difflib.get_close_matches(type, [*names, *(kind.uri for kind in KINDS)], n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise InvalidArgument(f"{type} is not a kind of plugin that can be begun; {hint}")
