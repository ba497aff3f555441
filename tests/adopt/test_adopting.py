"""Taking over and giving back: what is there afterwards, however often it is interrupted, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from adopt.boltfile import signed
from adopt.containerds import BLOBS, CONTAINER, NOW, POD, Containerd, digest, kept, snapshot

from windlass import faults
from windlass.contracts.snapshots import Kind
from windlass.errors import DataLoss, Error, FailedPrecondition, NoSpace, NotFound
from windlass_adopt import staging
from windlass_adopt.adopting import adopt, give_back, resume
from windlass_adopt.cri import status
from windlass_adopt.journal import Journals
from windlass_adopt.places import CONTENT, CRI, META_DB, METADATA, SNAPSHOT_DB, SNAPSHOTTER, TASKS
from windlass_adopt.plan import Plan, look
from windlass_adopt.report import plan_text
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Status, container_of, pod_of
from windlass_metadata.database import Database
from windlass_metadata.restoring import Contents, is_empty
from windlass_metadata.restoring import kept as read_kept
from windlass_storage.metastore import Metastore

OLD = "image docker.io/library/busy:1 in default"
KILLED = RuntimeError("killed here")


@pytest.fixture(params=[False, True], ids=["elsewhere", "in place"])
def containerd(request: pytest.FixtureRequest, tmp_path: Path) -> Containerd:
    """A containerd that is to be taken over by a Windlass with its own directories, or with containerd's."""
    return Containerd(tmp_path, in_place=request.param)


@pytest.fixture
def elsewhere() -> Iterator[Containerd]:
    """A containerd that is to be taken over by a Windlass with its own directories, at a path that sockets can have."""
    with tempfile.TemporaryDirectory(prefix="w.", dir="/tmp") as short:
        yield Containerd(Path(short))


@contextlib.contextmanager
def plan_of(containerd: Containerd) -> Iterator[Plan]:
    with contextlib.ExitStack() as locks:
        yield look(containerd.places, locks)


def adopt_all(containerd: Containerd) -> Plan:
    with plan_of(containerd) as plan:
        adopt(plan)
        return plan


def records(containerd: Containerd) -> dict[str, Contents]:
    """Return what Windlass has."""
    database = Database(containerd.places.root / METADATA / META_DB)
    try:
        return {each.namespace.name: each for each in read_kept(database)}
    finally:
        database.close()


def kill_at(number: int) -> None:
    """End what runs before the step of a number, counted from 0, as kill -9 would."""
    steps = iter(range(number))

    def fire() -> None:
        if next(steps, None) is None:
            raise KILLED

    faults.armed["adopt.step"] = iter([fire] * 10_000)


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.armed.clear()


def assert_adopted(containerd: Containerd) -> None:
    """Everything is where Windlass looks for it, and nowhere else."""
    places = containerd.places
    found = records(containerd)
    default = found["default"]
    assert [(each.name, each.created_at, dict(each.labels)) for each in default.images] == [
        ("docker.io/library/busy:1", NOW, {"x": "y"})
    ]
    [c1] = default.containers
    assert (c1.id, c1.snapshot_key, c1.runtime, dict(c1.labels)) == ("c1", "c1", "io.containerd.runc.v2", {"k": "v"})
    assert {(each.key, each.kind) for each in default.snapshots} == {
        ("sha256:chain", Kind.COMMITTED),
        ("c1", Kind.ACTIVE),
    }
    blobs = places.root / CONTENT / "blobs"
    assert sorted(path.read_bytes() for path in blobs.glob("*/*")) == sorted(BLOBS)
    store = Metastore(places.own_snapshots("overlayfs") / SNAPSHOT_DB)
    assert store.lookup("default/7/c1").parents == (1,)
    assert store.lookup("default/2/sha256:chain").usage.size == 4096
    store.close()
    assert (places.own_snapshots("overlayfs") / "snapshots/4/fs/file").read_text() == "4"
    bundle = places.state / TASKS / "default/c1"
    assert (bundle / "work").resolve() == (places.root / TASKS / "default/c1").resolve()
    assert (containerd.state / TASKS / "default/c1/address").read_text() == "unix:///nowhere"
    assert (containerd.source / CRI / f"sandboxes/{POD}/hosts").exists()
    status = Status.read(places.root / CRI / f"containers/{CONTAINER}/status")
    assert (status.started_at, status.state) == (NOW + 5, cri.CONTAINER_RUNNING)
    assert not Journals(places.root).unfinished()


def test_all_is_taken_over_and_given_back(containerd: Containerd) -> None:
    """Byte by byte, but for links that containerd makes anew."""
    before = containerd.listing()
    adopt_all(containerd)
    assert_adopted(containerd)
    assert give_back(containerd.places) == []
    assert containerd.listing() == before
    assert not (containerd.places.root / "adoption").exists()


def test_a_dry_run_changes_nothing_and_says_what_would_be_taken(elsewhere: Containerd, tmp_path: Path) -> None:
    before = elsewhere.listing()
    with plan_of(elsewhere) as plan:
        text = plan_text(plan)
    assert elsewhere.listing() == before
    assert not any(elsewhere.places.root.iterdir())
    words = dict(line.split()[:2] for line in text.splitlines()[2:-1])
    assert (words["images"], words["containers"], words["tasks"], words["blobs"]) == ("1", "3", "1", "3")
    assert "database version 3" in text
    assert "cannot be taken" not in text


def test_however_often_it_is_interrupted_it_can_be_finished(containerd: Containerd) -> None:
    """Killed before each of its steps, it goes on from there; and a second time it has nothing to do."""
    number, killed = 0, True
    while killed:
        killed = False
        kill_at(number)
        try:
            if not resume(containerd.places):
                adopt_all(containerd)
        except RuntimeError:
            killed = True
        number = 1 if number == 0 else number + 1
        faults.armed.clear()
        if killed:
            assert Journals(containerd.places.root).unfinished()
    assert number > 10
    assert_adopted(containerd)


def test_what_was_interrupted_anywhere_can_be_given_back(containerd: Containerd) -> None:
    """And what is being given back may be interrupted anywhere, too."""
    before, number = containerd.listing(), 0
    while True:
        kill_at(number)
        try:
            adopt_all(containerd)
            break
        except RuntimeError:
            back = 0
            while True:
                kill_at(back)
                try:
                    give_back(containerd.places)
                    break
                except RuntimeError:
                    back += 7
            faults.armed.clear()
        assert containerd.listing() == before, f"killed before step {number}"
        number += 1


def test_a_step_that_fails_undoes_all(containerd: Containerd) -> None:
    """Such as on a disk that has no room for a name."""

    def refuse() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    before = containerd.listing()
    faults.armed["adopt.step"] = iter([lambda: None] * 9 + [refuse] + [lambda: None] * 100)
    with pytest.raises(NoSpace, match=r"no space left in .*; make room and try again"):
        adopt_all(containerd)
    assert containerd.listing() == before
    assert not Journals(containerd.places.root).unfinished()
    adopt_all(containerd)
    assert_adopted(containerd)


def test_records_of_cri_are_understood(elsewhere: Containerd) -> None:
    """Pods and containers are what they were, with their logs, addresses and configurations."""
    adopt_all(elsewhere)
    found = records(elsewhere)["k8s.io"]
    [sandbox] = found.sandboxes
    pod = pod_of(sandbox)
    assert pod is not None
    assert (pod.data.name, pod.data.netns, pod.data.sandboxer) == ("p_default_u_0", "/run/netns/x", "podsandbox")
    assert pod.data.addresses == ("10.1.2.3", "fd00::3")
    assert pod.config.metadata.uid == "u"
    [row] = [each for each in found.containers if each.id == CONTAINER]
    container = container_of(row, elsewhere.places.root / CRI / "containers" / CONTAINER)
    assert container is not None
    assert (container.data.pod, container.data.log, container.data.stop_signal) == (POD, "/logs/c.log", "SIGINT")
    assert (container.config.envs[0].key, container.config.envs[0].value) == ("A", b"B")
    assert container.config.linux.resources.cpu_shares == 2


def test_a_pod_of_containerd_2_is_kept_with_its_sandbox(elsewhere: Containerd) -> None:
    known = elsewhere.meta["k8s.io"]
    assert isinstance(known, dict)
    known["sandboxes"] = {
        POD: {
            "sandboxer": b"podsandbox",
            "runtime": {"name": b"io.containerd.runc.v2"},
            "extensions": {"io.cri-containerd.sandbox.metadata": kept("v1", Name="new", Config={}, IP="")},
        }
    }
    elsewhere.write()
    adopt_all(elsewhere)
    [sandbox] = records(elsewhere)["k8s.io"].sandboxes
    pod = pod_of(sandbox)
    assert pod is not None
    assert (pod.data.name, pod.data.addresses) == ("new", ())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (kept("v2"), "container ctr1: its record has version 'v2', known is v1"),
        (kept("v1", Name="x"), "container ctr1: its record has no configuration"),
        (kept("v1", Config={"linux": 5}), "container ctr1: its configuration is not understood"),
        (kept("v1", Config={"image": {"image": "\ud800"}}), "container ctr1: its configuration is not understood"),
        (kept("v1", Config={"envs": [{"value": "\ud800"}]}), "container ctr1: its configuration is not understood"),
    ],
)
def test_a_record_of_cri_that_is_not_understood_is_said(elsewhere: Containerd, value: bytes, reason: str) -> None:
    known = elsewhere.meta["k8s.io"]
    assert isinstance(known, dict)
    containers = known["containers"]
    assert isinstance(containers, dict)
    ctr = containers[CONTAINER]
    assert isinstance(ctr, dict)
    ctr["extensions"] = {"io.cri-containerd.container.metadata": value}
    elsewhere.write()
    before = elsewhere.listing()
    with plan_of(elsewhere) as plan:
        assert any(each.startswith(reason) for each in plan.left), plan.left
        with pytest.raises(FailedPrecondition, match=r"not all can be taken: .*--leave-behind"):
            adopt(plan)
        assert elsewhere.listing() == before
        adopt(plan, leave_behind=True)


@pytest.mark.parametrize("text", ["[]", "5", '"v1"', "{", "[[]]", '{"Version": "v1", "ExitCode": [1]}'])
def test_a_status_of_cri_that_is_damaged_says_nothing(tmp_path: Path, text: str) -> None:
    """The container is taken over all the same."""
    (tmp_path / "status").write_text(text)
    assert status(tmp_path / "status").unknown


def test_a_containerd_that_runs_is_refused_with_the_remedy(elsewhere: Containerd) -> None:
    """It holds its database, or answers; either is enough."""
    database = elsewhere.source / METADATA / META_DB
    with database.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(FailedPrecondition, match=r"still runs: it has .*meta.db locked; stop it first"),
            plan_of(elsewhere),
        ):
            pass
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(elsewhere.state / "containerd.sock"))
        listener.listen()
        with (
            pytest.raises(FailedPrecondition, match=r"still runs: it answers on .*containerd.sock; stop it"),
            plan_of(elsewhere),
        ):
            pass


def test_a_newer_database_is_refused(elsewhere: Containerd) -> None:
    elsewhere.meta["version"] = signed(5)
    elsewhere.write()
    with pytest.raises(FailedPrecondition, match="has schema version 5, known are those up to 4"), plan_of(elsewhere):
        pass


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "."])
def test_names_that_lead_out_of_a_directory_are_refused(elsewhere: Containerd, name: str) -> None:
    """Namespaces and containers become directories."""
    elsewhere.meta[name or "x" * 100] = {"containers": {}}
    elsewhere.write()
    with pytest.raises(DataLoss, match="is damaged: page"), plan_of(elsewhere):
        pass


def test_snapshots_that_are_their_own_ancestors_are_refused(elsewhere: Containerd) -> None:
    elsewhere.snapshots = {"a": snapshot(1, 3, "b"), "b": snapshot(2, 3, "a")}
    elsewhere.write()
    with pytest.raises(DataLoss, match="the parents of snapshot 1 lead in a circle"), plan_of(elsewhere):
        pass


def test_snapshots_of_a_snapshotter_that_windlass_lacks_are_said(elsewhere: Containerd) -> None:
    """Nothing is left behind without a word."""
    known = elsewhere.meta["default"]
    assert isinstance(known, dict)
    rows = known["snapshots"]
    assert isinstance(rows, dict)
    rows["zfs"] = {"z": {"name": b"default/9/z"}}
    elsewhere.write()
    with plan_of(elsewhere) as plan:
        assert plan.left == ["snapshots of zfs: Windlass has no such snapshotter", "1 snapshots of zfs in default"]


def test_tasks_of_the_first_runtime_are_said(elsewhere: Containerd) -> None:
    """Their shims speak a protocol that containerd itself has dropped since."""
    (elsewhere.state / "io.containerd.runtime.v1.linux/default/old").mkdir(parents=True)
    with plan_of(elsewhere) as plan:
        assert plan.left == ["task old in default: its shim is of the runtime v1, run it anew"]


def test_damage_anywhere_is_an_error_or_makes_no_difference(elsewhere: Containerd) -> None:
    """Records too may hold anything; no other exception, and nothing is changed."""
    path, chance = elsewhere.source / METADATA / META_DB, random.Random(5)
    image = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(image)
        for _ in range(chance.randint(1, 5)):
            page = chance.randrange(len(image) // 4096) * 4096
            damaged[page + chance.randrange(chance.choice([200, 2000]))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataLoss, FailedPrecondition), plan_of(elsewhere):
            pass


def test_a_root_that_holds_records_is_refused(elsewhere: Containerd) -> None:
    adopt_all(elsewhere)
    shutil.copytree(elsewhere.places.root, elsewhere.places.root.with_name("copy"))
    give_back(elsewhere.places)
    shutil.rmtree(elsewhere.places.root)
    elsewhere.places.root.with_name("copy").rename(elsewhere.places.root)
    shutil.rmtree(elsewhere.places.root / "adoption")
    before = elsewhere.listing()
    with pytest.raises(FailedPrecondition, match="holds records already; choose another one by --root"):
        adopt_all(elsewhere)
    assert elsewhere.listing() == before


def test_the_empty_root_of_a_windlass_that_was_started_once_is_used(elsewhere: Containerd) -> None:
    """As after an installation, which starts the daemon; with everything given back, it is there again."""
    places = elsewhere.places
    Database(places.root / METADATA / META_DB).close()
    (places.root / CONTENT / "ingest").mkdir(parents=True)
    (places.own_snapshots("overlayfs") / "snapshots").mkdir(parents=True)
    Metastore(places.own_snapshots("overlayfs") / SNAPSHOT_DB).close()
    (places.state / TASKS / "default").mkdir(parents=True)
    before = elsewhere.listing()
    adopt_all(elsewhere)
    assert_adopted(elsewhere)
    give_back(places)
    assert elsewhere.listing() == before
    database = Database(places.root / METADATA / META_DB)
    assert is_empty(database)
    database.close()


def test_what_was_made_and_removed_meanwhile_is_said(elsewhere: Containerd) -> None:
    """Files of new snapshots are put out of containerd's way, who would use their numbers again."""
    places, before = elsewhere.places, elsewhere.listing()
    adopt_all(elsewhere)
    database = Database(places.root / METADATA / META_DB)
    database.write(lambda db: db.execute("UPDATE images SET name = 'new'"))
    database.close()
    (places.own_snapshots("overlayfs") / "snapshots/5/fs").mkdir(parents=True)
    assert give_back(places) == [
        "containerd does not know what was made since: image new in default",
        "containerd still lists what was removed since, remove it there, too: " + OLD,
    ]
    after = elsewhere.listing()
    left = f"{elsewhere.source}/{SNAPSHOTTER}.overlayfs/left-by-windlass"
    assert {each for each in after if each not in before} == {left, f"{left}/5", f"{left}/5/fs"}


def test_tasks_that_windlass_started_keep_all_from_being_given_back(elsewhere: Containerd) -> None:
    """containerd would remove their bundles, and what runs would be nobody's."""
    adopt_all(elsewhere)
    bundle = elsewhere.places.state / TASKS / "default/new"
    bundle.mkdir()
    (bundle / "bootstrap.json").write_text(json.dumps({"address": "unix:///x", "version": 3, "runtime": "runc"}))
    with pytest.raises(
        FailedPrecondition, match=r"^new in default were started by Windlass, .*; remove these tasks first"
    ):
        give_back(elsewhere.places)
    assert_adopted(elsewhere)


def test_nothing_can_be_given_back_that_was_not_adopted(elsewhere: Containerd) -> None:
    with pytest.raises(NotFound, match="has adopted nothing; set --root to one that has"):
        give_back(elsewhere.places)


def test_containerd_does_not_start_on_what_was_taken(elsewhere: Containerd) -> None:
    """It would end containers that its records do not name; the file says where they are."""
    adopt_all(elsewhere)
    text = (elsewhere.source / METADATA / META_DB).read_text()
    assert f"are with Windlass, at {elsewhere.places.root}" in text
    assert "--back gives them back" in text
    with pytest.raises(DataLoss, match=r"meta.db is damaged: page 0"), plan_of(elsewhere):
        pass


def test_what_is_in_the_way_of_giving_back_is_named_and_nothing_is_lost(containerd: Containerd) -> None:
    """A containerd was started all the same, on an empty database; with that moved away, all is given back."""
    before, places = containerd.listing(), containerd.places
    adopt_all(containerd)
    if places.root == places.source:
        pytest.skip("there containerd finds Windlass's database, and nothing is in the way")
    places.meta_db.write_bytes(b"new")
    (containerd.source / CONTENT / "ingest").mkdir(parents=True)
    for path in (containerd.source / CONTENT, places.meta_db):
        with pytest.raises(FailedPrecondition, match=r"in the way of .*; move it away|move that away") as caught:
            give_back(places)
        assert str(path) in str(caught.value) or "is containerd's" in str(caught.value)
        path.rename(path.with_name("away"))
    give_back(places)
    after = containerd.listing()
    assert before.items() <= after.items()


def test_old_sockets_lead_to_windlass(elsewhere: Containerd) -> None:
    """Shims send events there, and clients are configured so."""
    dead = elsewhere.state / "containerd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    adopt_all(elsewhere)
    assert str(dead.readlink()) == elsewhere.places.address
    assert str(dead.with_name("containerd.sock.ttrpc").readlink()) == elsewhere.places.ttrpc_address
    give_back(elsewhere.places)
    assert not dead.is_symlink()


def test_a_blob_without_a_file_is_said(elsewhere: Containerd) -> None:
    (elsewhere.source / CONTENT / "blobs" / digest(BLOBS[0]).replace(":", "/")).unlink()
    with plan_of(elsewhere) as plan:
        assert plan.left == ["1 blobs in default: their files are lost"]


def test_no_space_for_databases_leaves_everything(elsewhere: Containerd, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made before anything is moved."""

    def refuse(_database: Database, _contents: object) -> None:
        raise NoSpace("no space left for metadata database; make room on its disk")

    before = elsewhere.listing()
    monkeypatch.setattr(staging, "restore", refuse)
    with pytest.raises(Error, match="no space left"):
        adopt_all(elsewhere)
    assert elsewhere.listing() == before
    assert not elsewhere.places.staged.exists()
