"""Differs, metadata stores, exchanges and mount handlers that are broken on purpose; each is caught by its case."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conformance.test_broken import CAUGHT, arguments
from diff.conftest import ForkZygote, MemoryContent
from metadata.conftest import World

from windlass.contracts.activations import ActiveMount
from windlass.contracts.content import ContentStore
from windlass.contracts.diff import LABEL_UNCOMPRESSED, LAYER, LAYER_GZIP, CompareOptions
from windlass.contracts.events import Envelope
from windlass.contracts.leases import Lease, LeaseStore, Resource
from windlass.contracts.metadata import Collected
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import AlreadyExists, Error, InvalidArgument, NotFound
from windlass_conformance.differs import DifferSuite
from windlass_conformance.events import ExchangeSuite
from windlass_conformance.metadata import MetadataSuite
from windlass_conformance.mount_handlers import MountHandlerSuite
from windlass_diff.differ import WalkingDiffer
from windlass_events.exchange import LocalExchange
from windlass_linux import mounting
from windlass_storage.directory_handler import DirectoryHandler

FAILS = (*CAUGHT, Error, OSError, TimeoutError)


def holds(case: Callable[..., object], **known: object) -> bool:
    """Tell whether a case passes, whichever parameters it has."""
    for given in arguments(case):
        wanted = inspect.signature(case).parameters
        try:
            case(**{each: {**known, **given}[each] for each in wanted})
        except FAILS:
            return False
    return True


# Differs


class TellsThePackedDigest(WalkingDiffer):
    def apply(self, content: ContentStore, desc: Descriptor, *more: Any, **named: Any) -> Descriptor:
        return replace(super().apply(content, desc, *more, **named), digest=desc.digest)


class AppliesNothing(WalkingDiffer):
    def apply(self, content: ContentStore, desc: Descriptor, mounts: Sequence[Mount], *more: Any) -> Descriptor:
        elsewhere = Path(mounts[0].source).parent / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return super().apply(content, desc, [replace(mounts[0], source=str(elsewhere))], *more)


class SwallowsDamage(WalkingDiffer):
    def apply(self, content: ContentStore, desc: Descriptor, *more: Any) -> Descriptor:
        try:
            return super().apply(content, desc, *more)
        except InvalidArgument:
            return Descriptor(LAYER, desc.digest, desc.size)


class TakesEveryType(WalkingDiffer):
    def apply(self, content: ContentStore, desc: Descriptor, *more: Any) -> Descriptor:
        return super().apply(content, replace(desc, media_type=LAYER), *more)


class MakesEveryType(WalkingDiffer):
    def compare(self, content: ContentStore, lower: Any, upper: Any, options: CompareOptions) -> Descriptor:
        known = options.media_type in (LAYER, LAYER_GZIP)
        return super().compare(content, lower, upper, options if known else replace(options, media_type=LAYER))


class ForgetsThePlainDigest(WalkingDiffer):
    def compare(self, content: ContentStore, lower: Any, upper: Any, options: CompareOptions) -> Descriptor:
        made = super().compare(content, lower, upper, options)
        content.labels[made.digest].pop(LABEL_UNCOMPRESSED, None)  # type: ignore[attr-defined] # the store in memory
        return made


class ForgetsDeletions(WalkingDiffer):
    def compare(self, content: ContentStore, lower: Any, upper: Any, options: CompareOptions) -> Descriptor:
        empty = Path(lower[0].source).parent / "empty"
        empty.mkdir(exist_ok=True)
        return super().compare(content, [replace(lower[0], source=str(empty))], upper, options)


DIFFERS = (
    (TellsThePackedDigest, "test_apply_tells_the_plain_tar"),
    (AppliesNothing, "test_entries_are_what_the_layer_says"),
    (SwallowsDamage, "test_a_damaged_layer_is_refused"),
    (TakesEveryType, "test_an_unknown_type_is_left_to_others"),
    (MakesEveryType, "test_an_unknown_type_is_not_made"),
    (ForgetsThePlainDigest, "test_layers_are_described_and_labelled"),
    (ForgetsDeletions, "test_deletions_are_whiteouts"),
    (ForgetsDeletions, "test_equal_trees_make_an_empty_layer"),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="layers are applied in a mount namespace, which needs root")
@pytest.mark.parametrize(("broken", "name"), DIFFERS)
def test_a_broken_differ_is_caught(broken: type[WalkingDiffer], name: str, tmp_path: Path) -> None:
    for kind, expected in ((WalkingDiffer, True), (broken, False)):
        zygote = ForkZygote()
        zygote.preload(["windlass_diff.worker"])
        differ = kind(zygote, tmp_path / kind.__name__ / "target", 30.0)
        found = True
        for number, given in enumerate(arguments(getattr(DifferSuite, name))):
            place = tmp_path / kind.__name__ / str(number)
            place.mkdir()
            case = getattr(DifferSuite(), name)
            try:
                case(differ=differ, store=MemoryContent(), tmp_path=place, **given)
            except FAILS:
                found = False
        differ.close()
        zygote.close()
        assert found is expected


# Metadata stores


class Around:
    """A metadata store, and what is wrong with it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class HoldsNothingWritten(Around):
    def content(self, namespace: str, lease: str = "") -> Any:
        return self._inner.content(namespace)


class HoldsNoSnapshots(Around):
    def snapshotter(self, name: str, namespace: str, lease: str = "") -> Any:
        return self._inner.snapshotter(name, namespace)


class CollectsNothing(Around):
    def collect(self) -> Collected:
        return Collected()


class CollectsWhatIsLeased(Around):
    def collect(self) -> Collected:
        for namespace in ("conformance", "conformance-other"):
            for lease in self._inner.leases(namespace).list():
                self._inner.leases(namespace).delete(lease.id)
        done: Collected = self._inner.collect()
        return done


class MixesNamespaces(Around):
    def leases(self, namespace: str) -> Any:
        return self._inner.leases("conformance")


class ForgetsImages(Around):
    def images(self, namespace: str, lease: str = "") -> Any:
        class Forgetting(Around):
            def create(self, image: Any, at: int | None = None) -> Any:
                return image

        return Forgetting(self._inner.images(namespace, lease))


class AroundLeases(Around):
    wrong: type[Around]

    def leases(self, namespace: str) -> LeaseStore:
        return self.wrong(self._inner.leases(namespace))


class _MakesTwice(Around):
    def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:
        try:
            made: Lease = self._inner.create(id, labels)
            return made
        except AlreadyExists:
            return Lease(id)


class _ListsAll(Around):
    def list(self, filters: Sequence[str] = ()) -> list[Lease]:
        found: list[Lease] = self._inner.list()
        return found


class _HoldsEverything(Around):
    def add_resource(self, id: str, resource: Resource) -> None:
        try:
            self._inner.add_resource(id, resource)
        except (InvalidArgument, Error) as error:
            if isinstance(error, NotFound):
                raise


class _LetsNothingGo(Around):
    def delete_resource(self, id: str, resource: Resource) -> None:
        self._inner.resources(id)


class _DeletesWhatIsMissing(Around):
    def delete(self, id: str) -> None:
        try:
            self._inner.delete(id)
        except NotFound:
            return


def leasing(kind: type[Around]) -> type[AroundLeases]:
    return type(kind.__name__.strip("_"), (AroundLeases,), {"wrong": kind})


METADATA = (
    (HoldsNothingWritten, "test_what_is_written_is_held"),
    (HoldsNothingWritten, "test_a_lease_holds_until_it_is_deleted"),
    (HoldsNoSnapshots, "test_snapshots_are_held_by_key_and_then_by_name"),
    (CollectsNothing, "test_nothing_holds_what_nobody_names"),
    (CollectsNothing, "test_snapshots_that_nobody_names_go"),
    (CollectsWhatIsLeased, "test_a_lease_holds_until_it_is_deleted"),
    (MixesNamespaces, "test_leases_are_of_their_namespace"),
    (ForgetsImages, "test_an_image_holds_its_target_and_all_below"),
    (leasing(_MakesTwice), "test_a_lease_is_made_once"),
    (leasing(_ListsAll), "test_leases_are_listed_as_they_were_made"),
    (leasing(_HoldsEverything), "test_a_type_that_leases_do_not_know_is_refused"),
    (leasing(_LetsNothingGo), "test_resources_are_held_once"),
    (leasing(_DeletesWhatIsMissing), "test_a_deleted_lease_is_gone"),
)


@pytest.mark.parametrize(("broken", "name"), METADATA)
def test_a_broken_metadata_store_is_caught(broken: type[Around], name: str, tmp_path: Path) -> None:
    for kind, expected in ((Around, True), (broken, False)):
        found = True
        for number, given in enumerate(arguments(getattr(MetadataSuite, name))):
            root = tmp_path / kind.__name__ / str(number)
            root.mkdir(parents=True)
            world = World(root)
            known = {"namespace": "conformance", "other": "conformance-other", "snapshotter": "memory", **given}
            case = getattr(MetadataSuite(), name)
            wanted = inspect.signature(case).parameters
            everything = {"metadata": kind(world.open()), **known}
            try:
                case(**{each: everything[each] for each in wanted})
            except FAILS:
                found = False
            world.close()
        assert found is expected


# Exchanges


class TurnsEventsAround(LocalExchange):
    @asynccontextmanager
    async def subscribe(self, filters: Sequence[str] = ()) -> AsyncIterator[AsyncIterator[Envelope]]:
        async with super().subscribe(filters) as envelopes:

            async def pairs() -> AsyncIterator[Envelope]:
                while True:
                    first, second = await anext(envelopes), await anext(envelopes)
                    yield second
                    yield first

            yield pairs()


class IgnoresFilters(LocalExchange):
    def subscribe(self, filters: Sequence[str] = ()) -> Any:
        return super().subscribe()


class StampsAgain(LocalExchange):
    def forward(self, envelope: Envelope) -> None:
        self.publish(envelope.namespace, envelope.topic, envelope.event)


class TakesEveryTopic(LocalExchange):
    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        try:
            super().publish(namespace, topic, event)
        except InvalidArgument:
            return


class LosesTheContent(LocalExchange):
    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        super().publish(namespace, topic, Payload(event.type_url, b""))


EXCHANGES = (
    (TurnsEventsAround, "test_every_subscriber_gets_every_event_in_order"),
    (IgnoresFilters, "test_filters_choose"),
    (IgnoresFilters, "test_a_filter_that_does_not_parse_is_refused"),
    (StampsAgain, "test_forwarded_events_keep_their_time"),
    (TakesEveryTopic, "test_topics_are_checked"),
    (TakesEveryTopic, "test_a_namespace_is_needed"),
    (LosesTheContent, "test_events_arrive_as_they_were_published"),
)


@pytest.mark.parametrize(("broken", "name"), EXCHANGES)
def test_a_broken_exchange_is_caught(broken: type[LocalExchange], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass_conformance.events.PATIENCE", 1.0)
    for kind, expected in ((LocalExchange, True), (broken, False)):
        assert holds(getattr(ExchangeSuite(), name), exchange=kind, namespace="conformance") is expected


# Mount handlers


class LeavesItsDirectory(DirectoryHandler):
    def unmount(self, place: str) -> None:
        super().unmount(place)
        Path(place).mkdir(exist_ok=True)


class LeavesItsDirectoryWhenItFails(DirectoryHandler):
    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        try:
            return super().mount(mount, place, below)
        except OSError:
            Path(place).mkdir()
            raise


class SaysThatNothingIsMounted(DirectoryHandler):
    def is_mounted(self, place: str) -> bool:
        return False


class UnmountsOnlyOnce(DirectoryHandler):
    def unmount(self, place: str) -> None:
        if not Path(place).exists():
            raise NotFound(place)
        super().unmount(place)


class ForgetsTheTime(DirectoryHandler):
    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        return replace(super().mount(mount, place, below), mounted_at=0)


HANDLERS = (
    (LeavesItsDirectory, "test_nothing_is_left_of_what_is_undone"),
    (LeavesItsDirectoryWhenItFails, "test_a_mount_that_fails_leaves_nothing"),
    (SaysThatNothingIsMounted, "test_a_mount_is_made_at_its_place"),
    (UnmountsOnlyOnce, "test_undoing_twice_is_no_error"),
    (ForgetsTheTime, "test_a_mount_is_made_at_its_place"),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(("broken", "name"), HANDLERS)
def test_a_broken_mount_handler_is_caught(broken: type[DirectoryHandler], name: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    mount = Mount("bind", str(tmp_path / "source"), ("rbind", "ro"))
    nowhere = replace(mount, source=str(tmp_path / "nowhere"))
    for kind, expected in ((DirectoryHandler, True), (broken, False)):
        place = str(tmp_path / kind.__name__)
        case = getattr(MountHandlerSuite(), name)
        try:
            assert holds(case, handler=kind(), mount=mount, broken=nowhere, place=place) is expected
        finally:
            mounting.unmount_all(place) if Path(place).exists() else None


def test_at_least_thirty_are_caught() -> None:
    """With those of test_broken.py."""
    from conformance.test_broken import CONTENTS, SNAPSHOTTERS

    # Any: makers of plugins of all types
    kinds: tuple[tuple[Any, object], ...] = (*SNAPSHOTTERS, *CONTENTS, *DIFFERS, *METADATA, *EXCHANGES, *HANDLERS)
    assert len({broken.__name__ for broken, _ in kinds}) >= 30
