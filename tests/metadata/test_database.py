"""One writer, many readers, nothing lost: the database under concurrency, crashes, full disks and a second daemon."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from metadata.conftest import KEPT, World, digest_of, image, put

from windlass.contracts.snapshots import Info
from windlass.errors import DataLoss, Error, FailedPrecondition, Internal, NotFound, ResourceExhausted, Unavailable
from windlass_metadata.database import Database
from windlass_metadata.store import MetadataStore

TARGET = digest_of(b"x")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "meta.db")
    yield opened
    opened.close()


def add(name: str) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute("INSERT INTO namespaces (name) VALUES (?)", (name,)).rowcount


def names(database: Database) -> list[str]:
    with database.read() as db:
        return [name for (name,) in db.execute("SELECT name FROM namespaces ORDER BY name")]


class TestWriting:
    def test_what_a_change_raises_is_raised_and_nothing_of_it_is_kept(self, database: Database) -> None:
        def half(db: sqlite3.Connection) -> None:
            add("half")(db)
            raise NotFound("no such thing")

        with pytest.raises(NotFound, match="no such thing"):
            database.write(half)
        with pytest.raises(Internal):
            database.write(lambda db: db.execute("SELECT nonsense"))
        assert database.write(add("whole")) == 1
        assert names(database) == ["whole"]

    def test_requests_share_a_transaction_and_fail_alone(self, database: Database) -> None:
        """While one transaction is held up the others gather; those that fail do not spoil the rest."""
        entered, leave = threading.Event(), threading.Event()
        outcomes: dict[int, object] = {}

        def block(db: sqlite3.Connection) -> None:
            entered.set()
            assert leave.wait(10)

        def write(number: int) -> None:
            def change(db: sqlite3.Connection) -> int:
                add(f"n{number:02}")(db)
                if number % 3 == 0:
                    raise NotFound(str(number))
                return db.total_changes

            try:
                outcomes[number] = database.write(change)
            except NotFound as error:
                outcomes[number] = error

        threads = [threading.Thread(target=database.write, args=(block,))]
        threads[0].start()
        assert entered.wait(10)
        threads += [threading.Thread(target=write, args=(number,)) for number in range(12)]
        for thread in threads[1:]:
            thread.start()
        deadline = time.monotonic() + 5
        while len(database._requests) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        commits = []
        database._writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        leave.set()
        for thread in threads:
            thread.join(10)

        assert names(database) == [f"n{number:02}" for number in range(12) if number % 3]
        assert [number for number, outcome in sorted(outcomes.items()) if isinstance(outcome, NotFound)] == [0, 3, 6, 9]
        assert len(commits) == 2

    def test_readers_see_one_moment(self, database: Database) -> None:
        database.write(add("before"))
        with database.read() as db:
            first = db.execute("SELECT count(*) FROM namespaces").fetchone()
            database.write(add("meanwhile"))
            assert db.execute("SELECT count(*) FROM namespaces").fetchone() == first
        assert names(database) == ["before", "meanwhile"]

    def test_readers_cannot_write(self, database: Database) -> None:
        with pytest.raises(Internal), database.read() as db:
            add("x")(db)

    def test_closed_database_says_so(self, database: Database) -> None:
        database.close()
        database.close()
        with pytest.raises(Unavailable, match="is closed"):
            database.write(add("x"))
        with pytest.raises(Unavailable, match="is closed"), database.read():
            pass

    def test_durable_changes_are_synchronous_and_others_are_not(self, database: Database) -> None:
        def level(db: sqlite3.Connection) -> int:
            return int(db.execute("PRAGMA synchronous").fetchone()[0])

        assert database.write(level, durable=False) == 1
        assert database.write(level) == 2
        with database.read() as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


class TestOpening:
    def test_second_daemon_is_refused_with_the_process_that_has_it(self, database: Database, tmp_path: Path) -> None:
        started = time.monotonic()
        with pytest.raises(FailedPrecondition, match=f"process {os.getpid()}"):
            Database(tmp_path / "meta.db", wait=0.1)
        assert time.monotonic() - started < 1
        database.write(add("unharmed"))
        database.close()
        Database(tmp_path / "meta.db").close()

    def test_waits_for_a_daemon_that_is_just_leaving(self, database: Database, tmp_path: Path) -> None:
        timer = threading.Timer(0.2, database.close)
        timer.start()
        Database(tmp_path / "meta.db", wait=5).close()
        timer.join()

    def test_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "meta.db").write_bytes(b"hello" * 1000)
        with pytest.raises(DataLoss, match=r"meta\.db is damaged"):
            Database(tmp_path / "meta.db")

    def test_a_database_of_containerds_is_named(self, tmp_path: Path) -> None:
        """It is not damaged, and its owner keeps it as it is."""
        bolt = bytes(16) + bytes.fromhex("edda0ced02000000") + bytes(4072)
        (tmp_path / "meta.db").write_bytes(bolt)
        with pytest.raises(DataLoss, match=r"meta\.db is one of containerd's; set another root"):
            Database(tmp_path / "meta.db")
        assert (tmp_path / "meta.db").read_bytes() == bolt

    def test_database_of_a_newer_windlass_is_left_alone(self, database: Database, tmp_path: Path) -> None:
        database.close()
        with sqlite3.connect(tmp_path / "meta.db") as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        with pytest.raises(FailedPrecondition, match="schema 99"):
            Database(tmp_path / "meta.db")

    def test_numbers_are_never_given_twice_over_a_power_failure(self, database: Database, tmp_path: Path) -> None:
        """Those that were given and not made durable are leapt over."""
        from windlass_metadata.ledger import next_number

        given = [database.write(next_number, durable=False) for _ in range(3)]
        database.write(lambda db: db.execute("UPDATE sequence SET value = ?", (given[0],)).rowcount)
        database.close()
        again = Database(tmp_path / "meta.db")
        assert again.write(next_number) > given[-1]
        again.close()


class TestCrash:
    """What is read back from the files as they were at some moment, as after `kill -9`."""

    def crash(self, world: World) -> MetadataStore:
        copy = world.root / f"copy-{len(world.opened)}"
        copy.mkdir()
        for name in ("meta.db", "meta.db-wal"):
            shutil.copy(world.root / name, copy / name)
        return world.open(copy)

    def test_what_was_answered_is_there(self, metadata: MetadataStore, world: World) -> None:
        metadata.images("ns").create(image("img", TARGET))
        metadata.leases("ns").create("l")
        metadata.content("ns", "l").writer("ref").close()
        metadata.snapshotter("memory", "ns", "l").prepare("s")

        again = self.crash(world)

        assert again.images("ns").get("img") == metadata.images("ns").get("img")
        assert again.content("ns").status("ref").ref == "ref"
        assert again.snapshotter("memory", "ns").stat("s").name == "s"
        assert again.leases("ns").resources("l") == metadata.leases("ns").resources("l")

    @pytest.mark.parametrize("moment", ["prepare", "commit", "committed"])
    def test_snapshot_operation_is_finished_or_undone(self, metadata: MetadataStore, world: World, moment: str) -> None:
        """A commit that the snapshotter has carried out is finished, everything else is undone."""
        copies: list[tuple[MetadataStore, dict[str, Info]]] = []
        view = metadata.snapshotter("memory", "ns")
        view.prepare("key", "", KEPT)

        def crash_now(method: str, key: str) -> None:
            if method == moment and not copies:
                copies.append((self.crash(world), dict(world.snapshotter.snapshots)))

        world.snapshotter.before = crash_now
        view.prepare("second", "", KEPT)
        view.commit("name", "key", KEPT)
        [(again, world.snapshotter.snapshots)] = copies
        found = sorted(info.name for info in again.snapshotter("memory", "ns").walk())
        after = {"prepare": ["key"], "commit": ["key", "second"], "committed": ["name", "second"]}[moment]

        assert found == after
        again.snapshotter("memory", "ns").prepare("third", "", KEPT)
        if "key" in found:
            again.snapshotter("memory", "ns").commit("name", "key", KEPT)
        again.collect()
        assert len(world.snapshotter.snapshots) == len(list(again.snapshotter("memory", "ns").walk()))

    @pytest.mark.parametrize("moment", ["commit", "committed"])
    def test_content_commit_can_be_repeated(self, metadata: MetadataStore, world: World, moment: str) -> None:
        """And a blob that no namespace came to know goes with the next collection."""
        copies: list[MetadataStore] = []

        def crash_now(method: str, name: str) -> None:
            if method == moment:
                copies.append(self.crash(world))

        world.content.before = crash_now
        put(metadata.content("ns"), b"x", KEPT, ref="ref")
        world.content.before = lambda method, name: None
        (again,) = copies

        assert list(again.content("ns").walk()) == []
        again.collect()
        assert world.content.blobs == {}
        put(again.content("ns"), b"x", KEPT, ref="ref")
        again.collect()
        assert set(world.content.blobs) == {digest_of(b"x")}

    def test_removal_goes_on_where_it_stopped(self, metadata: MetadataStore, world: World) -> None:
        copies: list[MetadataStore] = []

        def crash_now(method: str, key: str) -> None:
            if method in ("remove", "delete") and len(copies) < 1:
                copies.append(self.crash(world))
                raise Internal("dead")

        for number in range(5):
            metadata.snapshotter("memory", "ns").prepare(f"s{number}")
            put(metadata.content("ns"), b"%d" % number)
        world.snapshotter.before = world.content.before = crash_now
        metadata.collect()
        again = copies[0]
        assert again.collect().failures == ()
        assert world.snapshotter.snapshots == {} == world.content.blobs

    def test_killed_daemon_loses_nothing_that_it_answered(self, tmp_path: Path) -> None:
        """A process writes namespaces, says so, and is killed at any moment."""
        script = (
            "import sys; from pathlib import Path; from windlass_metadata.database import Database\n"
            "database = Database(Path(sys.argv[1]) / 'meta.db')\n"
            "for number in range(100000):\n"
            "    insert = 'INSERT INTO namespaces (name) VALUES (?)'\n"
            "    database.write(lambda db: db.execute(insert, (str(number),)))\n"
            "    print(number, flush=True)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout
        for _ in range(200):
            last = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        last = (process.stdout.read().split("\n")[:-1] or [last])[-1]
        process.wait(10)
        process.stdout.close()

        database = Database(tmp_path / "meta.db")
        assert set(names(database)) >= {str(number) for number in range(int(last) + 1)}
        with database.read() as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
class TestFullDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        mountpoint = tmp_path / "small"
        mountpoint.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mountpoint)], check=True)
        yield mountpoint
        subprocess.run(["umount", "-l", str(mountpoint)], check=True)

    def test_error_says_so_and_everything_is_still_there(self, small: Path, world: World) -> None:
        """And when there is space again it goes on, in the same process and after opening again."""
        metadata = world.open(small)
        images = metadata.images("ns")
        images.create(image("first", TARGET))
        created = 0
        with pytest.raises(ResourceExhausted, match="no space left for metadata database"):
            for created in range(10_000):
                images.create(image(f"image-{created}", TARGET, {"filler": "x" * 4000}))
        assert images.get("first").name == "first"
        with pytest.raises(NotFound):
            images.get(f"image-{created}")
        metadata.close()

        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        again = world.open(small)
        assert len(again.images("ns").list()) == created + 1
        again.images("ns").create(image("last", TARGET))
        with world.opened[-1].read() as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_writing_goes_on_when_there_is_space_again(self, small: Path, world: World) -> None:
        metadata = world.open(small)
        images = metadata.images("ns")
        filler = small / "filler"
        with pytest.raises(ResourceExhausted):
            filler.write_bytes(b"x" * (1 << 20))
            for number in range(10_000):
                images.create(image(f"image-{number}", TARGET, {"filler": "x" * 4000}))
        filler.unlink()
        images.create(image("after", TARGET))
        assert images.get("after").name == "after"

    def test_deletions_do_not_need_space(self, small: Path, world: World) -> None:
        """However many, and with somebody who takes every block that comes free; opening needs none either."""
        images = world.open(small).images("ns")
        for number in range(60):
            images.create(image(f"image-{number}", TARGET))
        fill(small)
        with pytest.raises(ResourceExhausted):
            for number in range(60, 1000):
                images.create(image(f"image-{number}", TARGET, {"filler": "x" * 4000}))
        for number in range(60):
            images.delete(f"image-{number}")
            fill(small)
        world.opened[-1].close()
        fill(small)

        left = {each.name for each in world.open(small).images("ns").list()}
        assert not left & {f"image-{number}" for number in range(60)}


def fill(directory: Path) -> None:
    with (directory / "filler").open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("kind", [NotFound, sqlite3.OperationalError])
def test_an_error_goes_with_who_catches_it(database: Database, kind: type[Exception]) -> None:
    """Without the garbage collector, which runs late: errors hold the requests that they came of."""

    class Large:
        """What a change was about."""

    large = Large()
    kept = weakref.ref(large)

    def refuse(db: sqlite3.Connection, large: Large = large) -> None:
        raise kind("no")

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Error):
            database.write(refuse)
        del refuse, large
        assert kept() is None
    finally:
        gc.enable()
