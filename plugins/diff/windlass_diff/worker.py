"""What runs in the processes that the zygote forks for this differ: one layer each."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.mounts import Mount
from windlass_diff import streams, tar
from windlass_diff.apply import Applier
from windlass_diff.channel import Channel
from windlass_diff.compare import write_layer
from windlass_diff.target import Sides, Target


def to_mounts(rows: Sequence[Sequence[str]]) -> tuple[Mount, ...]:
    """Return mounts from their form in a request: type, source, target, options."""
    return tuple(Mount(kind, source, tuple(options), target) for kind, source, target, *options in rows)


def apply(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Apply the blob ``descriptors[1]`` as the request on the socket ``descriptors[0]`` says."""
    channel = Channel(descriptors[0])
    request = channel.request()

    def work() -> dict[str, object]:
        channel.step("mount")
        target = Target(to_mounts(request["mounts"]), request["directory"], request["detached"])
        try:
            channel.step("apply")
            pipeline = streams.Pipeline(streams.open_source(descriptors[1], request["compressed"]), channel.progress)
            Applier(target.rules, target.lowers, target.where).apply(tar.Archive(pipeline.read), channel.progress)
            if request["sync"]:
                channel.step("sync")
                target.sync()
            # Only now: after a failure the step is the one that failed.
            channel.step("unmount")
            return {"digest": pipeline.digest(), "size": pipeline.size}
        finally:
            target.leave()

    return channel.run(work)


def compare(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Write the layer between two sets of mounts to the pipe ``descriptors[1]``."""
    channel = Channel(descriptors[0])
    request = channel.request()

    def work() -> dict[str, object]:
        channel.step("mount")
        sides = Sides(to_mounts(request["lower"]), to_mounts(request["upper"]), request["directory"])
        try:
            channel.step("compare")
            written = write_layer(
                b"/lower", b"/upper", descriptors[1], request["compression"], request["epoch"], channel.progress
            )
            channel.step("unmount")
            return written
        finally:
            sides.leave()

    return channel.run(work)
