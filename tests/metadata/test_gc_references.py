"""What labels, leases and records keep: the tables of docs/containerd 3.14 and 8.3, on graphs read from a database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from metadata.conftest import World, digest_of, image

from windlass.contracts.containers import Container
from windlass.contracts.leases import Resource
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.values import Payload
from windlass_metadata import nodes
from windlass_metadata.graph import Graph, Marked, reach, referrers_first
from windlass_metadata.nodes import Node
from windlass_metadata.references import back_references, conditions, expired, is_root, parse_time, references
from windlass_metadata.store import MetadataStore

GC = "containerd.io/gc."
SPEC = Payload("spec", b"{}")
PAST, FUTURE = "2001-02-03T04:05:06Z", "2999-02-03T04:05:06Z"


def name(number: int) -> str:
    return digest_of(str(number).encode())


@pytest.mark.parametrize(
    ("label", "node"),
    [
        ("gc.ref.content", ("content", "ns", "x")),
        ("gc.ref.content.1", ("content", "ns", "x")),
        ("gc.ref.content/config", ("content", "ns", "x")),
        ("gc.ref.contentbad", None),
        ("gc.ref.image", ("image", "ns", "x")),
        ("gc.ref.image.1", ("image", "ns", "x")),
        ("gc.ref.image/a", ("image", "ns", "x")),
        ("gc.ref.snapshot.overlayfs", ("snapshot/overlayfs", "ns", "x")),
        ("gc.ref.snapshot.overlayfs/anything", ("snapshot/overlayfs", "ns", "x")),
        ("gc.ref.snapshot.", None),
        ("gc.ref.snapshot", None),
        ("gc.ref.container", None),
        ("gc.reference.content", None),
    ],
)
def test_forward_references(label: str, node: Node | None) -> None:
    assert list(references("ns", {f"containerd.io/{label}": "x"})) == ([node] if node else [])


@pytest.mark.parametrize(
    ("label", "node"),
    [
        ("gc.bref.container", ("container", "ns", "x")),
        ("gc.bref.container.1", ("container", "ns", "x")),
        ("gc.bref.containers", None),
        ("gc.bref.content/a", ("content", "ns", "x")),
        ("gc.bref.image", ("image", "ns", "x")),
        ("gc.bref.snapshot.btrfs/a", ("snapshot/btrfs", "ns", "x")),
        ("gc.ref.content", None),
    ],
)
def test_back_references(label: str, node: Node | None) -> None:
    assert list(back_references("ns", {f"containerd.io/{label}": "x"})) == ([node] if node else [])


@pytest.mark.parametrize(
    ("condition", "hours", "holds"),
    [
        ("usedat<2h|s", 1, True),
        ("usedat<2h|s", 3, False),
        ("usedat>2h|s", 3, True),
        ("usedat>2h|s", 1, False),
        ("usedat<1h,usedat>5h|s", 6, True),
        ("usedat<1h,usedat>5h|s", 3, False),
        ("usedat<90m|s", 1, True),
    ],
)
def test_conditions_look_at_when_a_snapshot_was_used(condition: str, hours: int, holds: bool) -> None:
    now = 10**18
    (found,) = conditions("ns", {"containerd.io/gc.cond.snapshot.overlayfs/x": condition})
    assert found.target == ("snapshot/overlayfs", "ns", "s")
    assert found.holds(now - hours * 3600 * 10**9, now) is holds
    assert found.holds(None, now) is False


@pytest.mark.parametrize("value", ["s", "|s", "usedat<|s", "usedat<2x|s", "other<2h|s", "usedat=2h|s"])
def test_conditions_that_cannot_be_read_do_not_exist(value: str) -> None:
    assert list(conditions("ns", {"containerd.io/gc.cond.snapshot.overlayfs": value})) == []


def test_times_of_expiry() -> None:
    now = time.time_ns()
    assert parse_time("1970-01-01T00:00:01.5Z") == parse_time("1970-01-01T02:00:01.500000+02:00") == 1_500_000_000
    assert parse_time("2024-01-02T03:04:05.123456789Z") is not None
    assert expired(PAST, now) and not expired(FUTURE, now)
    for text in (None, "", "soon", "2001-02-03", "2001-02-03T04:05:06"):
        assert not expired(text, now)
    assert is_root({GC + "root": "x"}) and is_root({GC + "root.reason": "x"}) and not is_root({GC + "ref.content": "x"})


class Fill:
    """Writes objects with labels straight through the views."""

    def __init__(self, metadata: MetadataStore, world: World) -> None:
        self.metadata, self.world = metadata, world

    def content(self, number: int, **labels: str) -> Node:
        digest = name(number)
        with metadata_rows(self.world) as write:
            write("INSERT INTO content VALUES ('ns', ?, 1, ?, 1, 1)", digest, labels)
        return nodes.content("ns", digest)

    def image(self, key: str, target: int, **labels: str) -> Node:
        self.metadata.images("ns").create(image(key, name(target), spelled(labels)))
        return nodes.image("ns", key)

    def container(self, id: str, snapshot: str = "", **labels: str) -> Node:
        record = Container(id, "r", None, SPEC, spelled(labels), "", "memory" if snapshot else "", snapshot)
        self.metadata.containers("ns").create(record)
        return nodes.container("ns", id)

    def snapshot(self, key: str, parent: str = "", snapshotter: str = "memory", **labels: str) -> Node:
        view = self.metadata.snapshotter(snapshotter, "ns")
        view.prepare(f"key-{key}", parent)
        view.commit(key, f"key-{key}", spelled(labels))
        return nodes.snapshot("ns", snapshotter, key)

    def lease(self, id: str, *resources: tuple[str, str], **labels: str) -> Node:
        self.metadata.leases("ns").create(id, spelled(labels))
        for type, key in resources:
            self.metadata.leases("ns").add_resource(id, Resource(key, type))
        return nodes.lease("ns", id)

    def graph(self) -> Graph:
        graph = Graph(time.time_ns())
        with self.world.opened[-1].read() as db:
            graph.load(db)
        return graph

    def alive(self) -> set[Node]:
        graph = self.graph()
        marked = Marked(graph)
        return {node for node in graph.removable if node in marked}


class metadata_rows:
    def __init__(self, world: World) -> None:
        self.database = world.opened[-1]

    def __enter__(self) -> Callable[[str, str, dict[str, str]], None]:
        from windlass_metadata.columns import encode_map

        def write(sql: str, digest: str, labels: dict[str, str]) -> None:
            self.database.write(lambda db: db.execute(sql, (digest, encode_map(spelled(labels)))).rowcount)

        return write

    def __exit__(self, *_: object) -> None:
        return None


def spelled(labels: dict[str, str]) -> dict[str, str]:
    """``ref_content__1`` is ``containerd.io/gc.ref.content.1``."""
    return {
        GC + key.replace("___", "/").replace("__", ".").replace("_", ".", 1): value for key, value in labels.items()
    }


@pytest.fixture
def fill(metadata: MetadataStore, world: World) -> Iterator[Fill]:
    yield Fill(metadata, world)


class TestRoots:
    def test_images_unless_they_have_expired(self, fill: Fill) -> None:
        """An image is alive with its target; one that expired only if a lease that lives holds it."""
        plain, future = fill.image("plain", 1), fill.image("future", 2, expire=FUTURE)
        past, leased = fill.image("past", 3, expire=PAST), fill.image("leased", 4, expire=PAST)
        lease = fill.lease("l", ("images", "leased"))
        contents = [fill.content(number) for number in range(1, 5)]

        assert fill.alive() == {plain, future, leased, lease, contents[0], contents[1], contents[3]}
        assert past in fill.graph().removable

    def test_containers_always(self, fill: Fill) -> None:
        snapshot, unused = fill.snapshot("s"), fill.snapshot("unused")
        fill.container("c", "s")
        assert fill.alive() == {snapshot}
        assert unused in fill.graph().removable

    def test_anything_labelled_root(self, fill: Fill) -> None:
        kept = {fill.content(1, root="x"), fill.content(2, root__reason="x"), fill.snapshot("s", root="x")}
        fill.content(3)
        fill.snapshot("t")
        assert fill.alive() == kept

    def test_ingests_until_they_expire_or_while_leased(self, fill: Fill, metadata: MetadataStore, world: World) -> None:
        metadata.leases("ns").create("l")
        metadata.content("ns").writer("unleased").close()
        metadata.content("ns", "l").writer("leased").close()
        metadata.leases("ns").create("dead", {GC + "expire": PAST})
        metadata.content("ns", "dead").writer("by-dead-lease").close()
        metadata.content("ns").writer("old").close()
        world.opened[-1].write(lambda db: db.execute("UPDATE ingests SET expires_at = 5 WHERE ref = 'old'").rowcount)

        assert fill.alive() == {nodes.ingest("ns", "unleased"), nodes.ingest("ns", "leased"), nodes.lease("ns", "l")}

    def test_leases_until_they_expire(self, fill: Fill) -> None:
        contents = [fill.content(number) for number in range(4)]
        held = [[("content", name(number)), ("snapshots/memory", "missing")] for number in range(4)]
        plain, future = fill.lease("plain", *held[0]), fill.lease("future", *held[1], expire=FUTURE)
        past, odd = fill.lease("past", *held[2], expire=PAST), fill.lease("odd", *held[3], expire="tomorrow")

        assert fill.alive() == {plain, future, odd, contents[0], contents[1], contents[3]}
        assert past in fill.graph().removable

    def test_a_time_that_no_clock_has_in_utc_stops_nobody(self, fill: Fill) -> None:
        """Such a label once ended every collection with an OverflowError."""
        past, future = (
            fill.lease("p", expire="0001-01-01T00:00:00+23:59"),
            fill.lease("f", expire="9999-12-31T23:59:59-23:59"),
        )
        assert past not in fill.alive()
        assert future in fill.alive()

    def test_what_sandboxes_refer_to(self, fill: Fill, metadata: MetadataStore) -> None:
        kept = fill.content(1)
        fill.content(2)
        metadata.sandboxes("ns").create(Sandbox("sb", labels={GC + "ref.content": name(1)}))
        assert fill.alive() == {kept}


class TestReferences:
    def test_labels_are_followed_from_what_is_reached(self, fill: Fill) -> None:
        """Through content, snapshots, images and containers, also across snapshotters, and in circles."""
        img = fill.image("img", 1)
        one = fill.content(1, ref_content__a=name(2), ref_content___b=name(3))
        two = fill.content(2, ref_snapshot__memory="top", ref_content=name(1))
        three, lost = fill.content(3), fill.content(4, ref_content=name(3))
        bottom = fill.snapshot("bottom", ref_snapshot__other="foreign")
        top = fill.snapshot("top", "bottom", ref_content=name(5))
        foreign, five = fill.snapshot("foreign", "", "other"), fill.content(5)
        fill.container("c", ref_image="expired", ref_snapshot__other___x="by-container")
        by_container, by_image = fill.snapshot("by-container", "", "other"), fill.image("expired", 6, expire=PAST)
        six = fill.content(6)

        assert fill.alive() == {img, one, two, three, top, bottom, foreign, five, by_container, by_image, six}
        assert lost in fill.graph().removable

    def test_back_references_keep_a_resource_as_long_as_the_other(self, fill: Fill) -> None:
        fill.container("c1")
        kept = [fill.content(1, bref_container="c1"), fill.snapshot("s", bref_content=name(1))]
        kept += [fill.content(2, bref_snapshot__memory="s")]
        gone = [fill.content(3, bref_container="nobody"), fill.snapshot("t", bref_content=name(3))]

        assert fill.alive() == set(kept)
        assert set(gone) < set(fill.graph().removable)

    def test_only_expired_images_need_back_references(self, fill: Fill) -> None:
        root = fill.image("root", 1)
        future, past = (
            fill.image("future", 2, expire=FUTURE, bref_image="root"),
            fill.image("past", 3, expire=PAST, bref_image="root"),
        )
        assert fill.graph().edges[root].count(future) == 0
        assert fill.graph().edges[root].count(past) == 1
        assert fill.alive() == {root, future, past}

    def test_conditions_are_judged_by_the_snapshot(self, fill: Fill) -> None:
        def ago(hours: float) -> str:
            return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()

        img = fill.image("img", 1, cond_snapshot__memory___a="usedat<2h|recent")
        fill.metadata.images("ns").update(
            image(
                "img",
                name(1),
                {
                    GC + "cond.snapshot.memory/a": "usedat<2h|recent",
                    GC + "cond.snapshot.memory/b": "usedat<2h|old",
                    GC + "cond.snapshot.memory/c": "usedat<2h|never",
                },
            )
        )
        used_at = GC + "cond.value-usedat"
        view = fill.metadata.snapshotter("memory", "ns")
        for key, labels in (("recent", {used_at: ago(1)}), ("old", {used_at: ago(3)}), ("never", {})):
            view.prepare("x")
            view.commit(key, "x", labels)

        assert fill.alive() == {img, nodes.snapshot("ns", "memory", "recent")}

    def test_flat_leases_keep_what_they_list_and_its_foundations(self, fill: Fill) -> None:
        bottom = fill.snapshot("bottom", ref_content=name(8))
        top = fill.snapshot("top", "bottom", ref_content=name(9))
        img, target = fill.image("img", 1, expire=PAST, ref_content=name(9)), fill.content(1, ref_content=name(9))
        listed = fill.content(2, ref_content=name(9))
        lease = fill.lease("l", ("content", name(2)), ("snapshots/memory", "top"), ("images", "img"), flat="yes")
        fill.content(8)
        fill.content(9)

        assert fill.alive() == {lease, bottom, top, img, target, listed}

    def test_virtual_ingest_keeps_the_blob_it_stands_for(self, fill: Fill) -> None:
        """Its own namespace's, if it has one; the bytes are kept in any case."""
        fill.content(1)
        fill.metadata.content("two").writer("ref", 0, name(1)).close()
        assert fill.graph().edges[nodes.ingest("two", "ref")] == [nodes.content("two", name(1))]

    def test_nothing_crosses_namespaces(self, fill: Fill, metadata: MetadataStore) -> None:
        fill.content(1)
        metadata.images("other").create(image("img", name(1)))
        assert fill.alive() == {nodes.image("other", "img")}


def test_reachable_is_the_closure_with_circles() -> None:
    def node(key: str) -> Node:
        return "content", "ns", key

    edges = {node(a): [node(b) for b in targets] for a, targets in {"a": "bc", "b": "a", "c": "d", "e": "a"}.items()}
    reached: set[Node] = set()
    reach([node("a"), node("x")], edges, reached)
    assert reached == {node(key) for key in "abcdx"}


def test_garbage_is_ordered_with_referrers_first() -> None:
    def node(key: str) -> Node:
        return "content", "ns", key

    edges = {
        node(a): [node(b) for b in targets]
        for a, targets in {"a": "bd", "b": "c", "d": "c", "x": "y", "y": "x"}.items()
    }
    order = [key for _, _, key in referrers_first([node(key) for key in "cbadxy"], edges)]

    assert sorted(order) == list("abcdxy")
    assert order.index("a") < order.index("b") < order.index("c")
    assert order.index("a") < order.index("d") < order.index("c")
