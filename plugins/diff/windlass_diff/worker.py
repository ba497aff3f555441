"""What runs in the processes that the zygote forks for this differ: one layer each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from windlass.contracts.mounts import Mount
from windlass.errors import Error
from windlass_diff import streams, tar
from windlass_diff.apply import Applier
from windlass_diff.channel import Channel
from windlass_diff.compare import write_layer
from windlass_diff.confine import give_up_privileges, raise_oom_score
from windlass_diff.messages import Request, Result
from windlass_diff.target import Sides, Target


def to_mounts(rows: Sequence[Sequence[str]]) -> tuple[Mount, ...]:
    """Return mounts from their form in a request: type, source, target, options."""
    return tuple(Mount(kind, source, tuple(options), target) for kind, source, target, *options in rows)


def prepare(request: Request) -> None:
    """Be ready for what strangers have made; stream processors have still to be started with what we have."""
    raise_oom_score()
    if not request.get("processors"):
        give_up_privileges()


@contextmanager
def plain_tar(request: Request, descriptors: Sequence[int], channel: Channel) -> Iterator[streams.Pipeline]:
    """Yield what is in the blob ``descriptors[1]``; the rest are payloads of the programs that it goes through.

    When the block has ended well, so have they.
    """
    compressed = bool(request["compressed"])
    if not request["processors"]:
        blob = streams.Blob(descriptors[1])
        yield streams.Pipeline(lambda: streams.open_source(blob, compressed), channel.progress)
        return
    from windlass_diff.processors import Chain

    channel.step("start " + ", ".join(str(row[0]) for row in request["processors"]))
    chain = Chain(request["processors"], descriptors[1], descriptors[2:])
    give_up_privileges()

    def waiting() -> None:
        # Some read it all before they write.
        if chain.reads():
            channel.alive()

    with closing(chain):
        pipe = streams.Pipe(chain.output)
        try:
            yield streams.Pipeline(lambda: streams.open_source(pipe, compressed), channel.progress, waiting)
        except Error:
            chain.explain()
            raise
        channel.step("end of stream processors")
        chain.check()


def apply(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Apply the blob ``descriptors[1]`` as the request on the socket ``descriptors[0]`` says."""
    channel = Channel(descriptors[0])
    request = channel.request(prepare)
    through = "".join(f", through {row[0]}" for row in request["processors"])

    def work() -> Result:
        with plain_tar(request, descriptors, channel) as pipeline:
            channel.step("mount")
            target = Target(to_mounts(request["mounts"]), request["directory"], request["detached"])
            try:
                channel.step(f"apply{through}")
                Applier(target.rules, target.lowers, target.where).apply(tar.Archive(pipeline.read), channel.progress)
                if request["sync"]:
                    channel.step("sync")
                    target.sync()
                # Only now: after a failure the step is the one that failed.
                channel.step("unmount")
                result = Result(digest=pipeline.digest(), size=pipeline.size)
            finally:
                target.leave()
        return result

    return channel.run(work)


def compare(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Write the layer between two sets of mounts to the pipe ``descriptors[1]``."""
    channel = Channel(descriptors[0])
    request = channel.request(prepare)

    def work() -> Result:
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
