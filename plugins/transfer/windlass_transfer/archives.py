"""Imports from archives that a client sends, and exports to it (docs/containerd 6.6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from windlass.contracts.transfer import ExportArchive, ImportArchive, Progress, Report, Stored, Unpack
from windlass.contracts.values import Descriptor
from windlass.errors import InvalidArgument, Unimplemented
from windlass_images import exporter, importer, naming, platforms
from windlass_images.imagetree import Tree
from windlass_images.importer import Options
from windlass_images.unpack import Ways, ignore, unpack
from windlass_local.store import LocalStore

OCI_TAR = ("", "application/vnd.oci.image.layout.v1+tar", "application/x-tar", "application/vnd.oci.image.layer.v1.tar")
Admit = Callable[[str, Descriptor], Awaitable[None]]


async def take(
    store: LocalStore,
    source: ImportArchive,
    wanted: Stored,
    unpacks: Sequence[Unpack],
    report: Report,
    admit: Admit,
    ways: Ways,
    strict: bool,
) -> None:
    """Import an archive: all images of it that are to have a name, or nothing."""
    if not wanted.name and not wanted.extra_references:
        raise InvalidArgument("an import needs a name for the image, or rules for the names in the archive")
    report(Progress("Importing"))
    options = Options(
        platform=wanted.platforms or None,
        labels=wanted.labels,
        index_name=wanted.name,
        references=wanted.extra_references,
        limit=wanted.manifest_limit,
        all_metadata=wanted.all_metadata,
        compress=source.force_compress,
    )
    async with store.lease("import") as leased:
        trees = await _read(leased, source, options, report)
        if not trees:
            raise InvalidArgument("the archive has no image that the rules give a name")
        for name, tree in trees:
            await admit(name, tree.root)
        for each in unpacks:
            chosen = [leaf for _, tree in trees for leaf in tree.leaves_for(each.platform, strict)]
            for leaf in {leaf.target.digest: leaf for leaf in chosen}.values():
                await unpack(leased, each.snapshotter, leaf, ignore, ways)
        for name, tree in trees:
            await leased.images.put(name, tree.root, naming.labels(name, wanted))
            report(Progress("saved", name, desc=tree.root))
    report(Progress("Completed import"))


async def _read(store: LocalStore, source: ImportArchive, options: Options, report: Report) -> list[tuple[str, Tree]]:
    def show(verb: str, what: str, done: int, total: int) -> None:
        report(Progress("importing", what, progress=done, total=total))

    files = await importer.open_source(source.source)
    try:
        return await importer.collect(store, files, options, show)
    finally:
        files.close()


async def give(store: LocalStore, source: Stored, destination: ExportArchive, report: Report) -> None:
    """Export images to an archive."""
    if destination.media_type not in OCI_TAR:
        raise Unimplemented(f"archives of type {destination.media_type[:100]!r} are not made, only OCI layouts as tar")
    chosen = None if destination.all_platforms else destination.platforms or platforms.host()
    names = [name for name in (source.name, *(each.name for each in source.extra_references)) if name]
    options = exporter.Options(
        platforms=chosen,
        skip_docker_manifest=destination.skip_compatibility_manifest,
        skip_non_distributable=destination.skip_non_distributable,
    )
    report(Progress("Exporting"))

    def show(verb: str, what: str, done: int, total: int) -> None:
        report(Progress("exporting", what, progress=done, total=total))

    async with store.lease("export") as leased:
        await exporter.save(leased, names, destination.sink, options, show)
    report(Progress("Completed export"))
