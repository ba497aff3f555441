"""Activations on a real machine: what is mounted where, what is left after failures, and what a new daemon finds."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from windlass.contracts.activations import ActivateOptions, Activation, ActiveMount
from windlass.contracts.mounts import Mount
from windlass.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    Unimplemented,
)
from windlass_linux import loop_calls, mounting
from windlass_mounts.loops import LoopHandler
from windlass_mounts.manager import ActiveMounts
from windlass_mounts.mkfs import make_image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")

TMPFS = Mount("tmpfs", "tmpfs", ("size=64k",))
NS = "test"


@dataclass
class Marking:
    """A handler of type ``marking`` that leaves a file, or fails, or waits."""

    failing: bool = False
    stuck: bool = False
    gate: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)
    unmounted: list[str] = field(default_factory=list)

    def mount(self, mount: Mount, place: str, below: Sequence[ActiveMount]) -> ActiveMount:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.failing:
            raise OSError(5, "it fails", place)
        Path(place).write_text(f"on {len(below)}")
        return ActiveMount(mount, place, 1, {"marked": "yes"})

    def unmount(self, place: str) -> None:
        if self.stuck:
            raise OSError(16, "it is stuck", place)
        self.unmounted.append(place)
        Path(place).unlink(missing_ok=True)

    def is_mounted(self, place: str) -> bool:
        return Path(place).exists()


class House:
    """A daemon's directories, and mount managers in them, one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.marking = Marking()
        self.leases: set[str] = set()

    def open(self) -> ActiveMounts:
        def check(namespace: str, lease: str) -> None:
            if lease not in self.leases:
                raise NotFound(f"lease {lease} of {namespace} does not exist")

        return ActiveMounts(self.state, {"loop": LoopHandler(), "marking": self.marking}, (self.root,), check)

    def mounted(self) -> list[str]:
        return [place.removeprefix(f"{self.state}/t/") for place in mounting.mounts_below(self.state)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.marking = Marking()
    manager = house.open()
    for row in manager.collectibles():
        manager.discard(row.namespace, row.id)
    manager.clean()
    manager.close()
    left = house.mounted()
    mounting.unmount_all(tmp_path)
    assert not left
    assert not list((house.state / "t").iterdir())


@pytest.fixture
def manager(house: House) -> Iterator[ActiveMounts]:
    manager = house.open()
    yield manager
    manager.close()


def image(path: Path) -> Path:
    make_image(path, 4 << 20, "ext4")
    return path


def test_mounts_that_others_build_on_are_made(manager: ActiveMounts, house: House) -> None:
    """They are numbered so that ascending order unmounts them, and the caller gets the rest."""
    overlay = Mount("format/overlay", "overlay", ("lowerdir={{ overlay 1 0 }}", "ro"))
    done = manager.activate(NS, "one", [TMPFS, TMPFS, overlay], ActivateOptions(labels={"a": "b"}))
    places = [active.mount_point for active in done.active]
    assert house.mounted() == ["1/2", "1/1"]
    assert places == [f"{house.state}/t/1/2", f"{house.state}/t/1/1"]
    assert done.system == (Mount("overlay", "overlay", (f"lowerdir={places[1]}:{places[0]}", "ro")),)
    assert all(active.mounted_at for active in done.active)
    assert manager.info(NS, "one") == done
    assert manager.list(NS) == [done]
    mode = stat.S_IMODE((house.state / "mounts.db").stat().st_mode)
    assert (mode, stat.S_IMODE(manager.targets.stat().st_mode)) == (0o600, 0o700)

    with mounting.mounted(done.system, house.root):
        pass
    manager.deactivate(NS, "one")
    assert not house.mounted()
    for gone in (manager.info, manager.deactivate):
        with pytest.raises(NotFound, match="mount one does not exist"):
            gone(NS, "one")


def test_a_name_is_one_namespace_s(manager: ActiveMounts) -> None:
    """The same name in two namespaces is two activations; in one it exists already."""
    temporary = ActivateOptions(temporary=True)
    manager.activate(NS, "one", [TMPFS], temporary)
    manager.activate("other", "one", [TMPFS], temporary)
    with pytest.raises(AlreadyExists, match="mount one exists already"):
        manager.activate(NS, "one", [TMPFS], temporary)
    manager.deactivate("other", "one")
    assert [each.name for each in manager.list(NS)] == ["one"]
    assert manager.list("other") == []


def test_a_temporary_activation_is_shown_by_a_bind(manager: ActiveMounts, house: House) -> None:
    """The caller binds the last mount, whatever it was."""
    done = manager.activate(NS, "one", [TMPFS, Mount("tmpfs", "x", ("ro",))], ActivateOptions(temporary=True))
    assert done.system == (Mount("bind", done.active[1].mount_point, ("ro", "rbind")),)
    with mounting.mounted(done.system, house.root) as place:
        assert os.path.ismount(place)


def test_what_needs_nothing_is_the_caller_s(manager: ActiveMounts, house: House) -> None:
    """Unimplemented tells a client to mount by itself; nothing is kept."""
    with pytest.raises(Unimplemented, match="nothing to activate"):
        manager.activate(NS, "one", [TMPFS])
    assert not manager.handles([TMPFS])
    assert manager.handles([Mount("loop", "x")])
    assert manager.list(NS) == []


def test_a_file_becomes_a_device_and_the_device_a_filesystem(manager: ActiveMounts, house: House) -> None:
    """The device stays while it is active, is found again by a later daemon, and is free afterwards."""
    mounts = [Mount("loop", str(image(house.root / "image"))), Mount("format/ext4", "{{ mount 0 }}")]
    done = manager.activate(NS, "one", mounts)
    device = done.active[0].data["device"]
    backing = Path("/sys/block", Path(device).name, "loop/backing_file")
    assert done.system == (Mount("ext4", f"{house.state}/t/1/1"),)
    assert backing.read_text().strip() == str(house.root / "image")
    with mounting.mounted(done.system, house.root) as place:
        Path(place, "file").write_text("written")

    again = house.open()
    again.clean()
    assert again.info(NS, "one") == done
    again.deactivate(NS, "one")
    again.close()
    assert not backing.exists() or str(house.root) not in backing.read_text()


def test_a_device_that_is_another_s_by_now_is_left_alone(manager: ActiveMounts, house: House) -> None:
    """Only a device that carries our name is freed."""
    done = manager.activate(NS, "one", [Mount("loop", str(image(house.root / "image")))])
    link = Path(done.active[0].mount_point)
    device = link.readlink()
    link.unlink()
    link.symlink_to("/dev/null")
    manager.deactivate(NS, "one")
    assert not link.is_symlink()
    descriptor = os.open(device, os.O_RDONLY)
    try:
        assert loop_calls.loop_get_status(descriptor)[1] == str(link)[-63:]
        loop_calls.loop_clr_fd(descriptor)
    finally:
        os.close(descriptor)


def test_a_filesystem_is_made_where_there_is_none(manager: ActiveMounts, house: House) -> None:
    """The image is sparse, 0640, has the UUID asked for, and is not made again."""
    path, uuid = house.root / "rw.img", "01234567-89ab-cdef-0123-456789abcdef"
    options = ("X-containerd.mkfs.size=8MiB", f"X-containerd.mkfs.uuid={uuid}", "loop")
    done = manager.activate(NS, "one", [Mount("mkfs/ext4", str(path), options)])
    assert (done.active, done.system) == ((), (Mount("ext4", str(path), ("loop",)),))
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o640, 8 << 20)
    assert status.st_blocks * 512 < status.st_size
    with path.open("rb") as file:
        assert file.read(1024 + 0x68 + 16)[-16:].hex() == uuid.replace("-", "")
    with mounting.mounted(done.system, house.root) as place:
        Path(place, "file").write_text("kept")
    manager.activate(NS, "two", [Mount("mkfs/ext4", str(path), options)])
    with mounting.mounted(done.system, house.root) as place:
        assert Path(place, "file").read_text() == "kept"
    assert [each.name for each in house.root.iterdir() if "rw.img" in each.name] == ["rw.img"]


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        ("x.img", (), InvalidArgument, "size= is missing"),
        ("x.img", ("X-containerd.mkfs.size=1M", "X-containerd.mkfs.fs=ntfs"), InvalidArgument, "cannot be made"),
        ("x.img", ("X-containerd.mkfs.size=1M", "X-containerd.mkfs.uuid=x"), InvalidArgument, "not a UUID"),
        ("x.img", ("X-containerd.mkfs.size=1M", "X-containerd.mkfs.x=1"), InvalidArgument, "is unknown"),
        ("x.img", ("X-containerd.mkfs.size=1k",), FailedPrecondition, "mkfs.ext4 .* failed"),
        ("/etc/x.img", ("X-containerd.mkfs.size=1M",), Unimplemented, "is not below"),
        ("../x.img", ("X-containerd.mkfs.size=1M",), Unimplemented, "is not below"),
        ("link/x.img", ("X-containerd.mkfs.size=1M",), Unimplemented, "symbolic link"),
        ("none/x.img", ("X-containerd.mkfs.size=1M",), FailedPrecondition, "does not exist"),
    ],
)
def test_filesystems_that_cannot_be_made(
    manager: ActiveMounts, house: House, source: str, options: tuple[str, ...], error: type[Exception], words: str
) -> None:
    (house.root / "link").symlink_to("/tmp")
    with pytest.raises(error, match=words):
        manager.activate(NS, "one", [Mount("mkfs/ext4", os.path.join(house.root, source), options)])
    assert not list(house.root.glob("*img*"))
    assert manager.list(NS) == []


def test_directories_are_made(manager: ActiveMounts, house: House) -> None:
    """With the mode and owner asked for, whatever the umask is; a second time nothing happens."""
    mount = Mount(
        "mkdir/bind",
        str(house.root),
        (
            f"X-containerd.mkdir.path={house.root}/a/b:1755:5:6",
            "rbind",
            f"X-containerd.mkdir.path={house.root}/c",
        ),
    )
    before = os.umask(0o077)
    try:
        done = manager.activate(NS, "one", [mount])
    finally:
        os.umask(before)
    assert done.system == (Mount("bind", str(house.root), ("rbind",)),)
    made = (house.root / "a/b").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid) == (0o1755, 5, 6)
    assert stat.S_IMODE((house.root / "c").stat().st_mode) == 0o700
    manager.activate(NS, "two", [mount])


@pytest.mark.parametrize("path", ["/etc/x", "ROOT", "ROOT/a/../../x", "ROOT/link/x", "ROOT/file", "ROOT/open", "x"])
def test_directories_that_are_not_ours_to_make(
    manager: ActiveMounts, house: House, path: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Outside of our root, through a link, or other than what is there: the caller may know better."""
    outside = tmp_path_factory.mktemp("outside")
    (house.root / "link").symlink_to(outside)
    (house.root / "file").touch()
    (house.root / "open").mkdir(0o755)
    option = "X-containerd.mkdir.path=" + path.replace("ROOT", str(house.root))
    with pytest.raises(Unimplemented):
        manager.activate(NS, "one", [Mount("mkdir/bind", "/", (option, "rbind"))])
    assert not list(outside.iterdir())


def test_a_failure_leaves_nothing(manager: ActiveMounts, house: House) -> None:
    """What was mounted before is unmounted, and the name is free."""
    house.marking.failing = True
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="it fails"):
            manager.activate(NS, "one", [TMPFS, Mount("marking", "x")])
    assert not house.mounted()
    assert not list(manager.targets.iterdir())
    with pytest.raises(FailedPrecondition, match="cannot mount nonesuch"):
        manager.activate(NS, "one", [Mount("nonesuch", "x")], ActivateOptions(temporary=True))
    house.marking.failing = False
    done = manager.activate(NS, "one", [TMPFS, Mount("marking", "x")])
    assert done.active[1].data == {"marked": "yes"}
    assert Path(done.active[1].mount_point).read_text() == "on 1"


def test_what_cannot_be_unmounted_is_tried_again(manager: ActiveMounts, house: House) -> None:
    """It is no longer active, and goes by another call, by garbage collection, or when its name is wanted."""
    for again in ("deactivate", "collect", "activate"):
        manager.activate(NS, "one", [Mount("marking", "x")])
        house.marking.stuck = True
        with pytest.raises(FailedPrecondition, match="it is stuck"):
            manager.deactivate(NS, "one")
        with pytest.raises(NotFound, match="is not active"):
            manager.info(NS, "one")
        assert manager.list(NS) == []
        house.marking.stuck = False
        if again == "deactivate":
            manager.deactivate(NS, "one")
        elif again == "collect":
            (doomed,) = manager.collectibles()
            assert not (doomed.lease or doomed.labels)
            manager.discard(NS, doomed.id)
            manager.discard(NS, doomed.id)
        else:
            manager.activate(NS, "one", [Mount("marking", "x")])


def test_two_calls_for_one_name_do_not_meet(manager: ActiveMounts, house: House) -> None:
    """While one is under way another is told to try again, and garbage collection sees nothing."""
    house.marking.gate = threading.Event()
    results: list[Activation] = []
    thread = threading.Thread(
        target=lambda: results.append(manager.activate(NS, "one", [Mount("marking", "x")])), daemon=True
    )
    thread.start()
    assert house.marking.entered.wait(10)
    for call in (
        lambda: manager.activate(NS, "one", [Mount("marking", "x")]),
        lambda: manager.deactivate(NS, "one"),
    ):
        with pytest.raises(Unavailable, match="another call"):
            call()
    assert manager.collectibles() == []
    manager.clean()
    house.marking.gate.set()
    thread.join(10)
    assert results == manager.list(NS)


def test_labels_have_keys_and_any_length(manager: ActiveMounts) -> None:
    """As in containerd, which limits no label of a mount but needs its key."""
    long = {"k": "v" * 5000}
    with pytest.raises(InvalidArgument):
        manager.activate(NS, "bad", [TMPFS], ActivateOptions(temporary=True, labels={"": "x"}))
    assert manager.activate(NS, "long", [TMPFS], ActivateOptions(temporary=True, labels=long)).labels == long
    assert manager.update(NS, Activation("long", labels={"l": "w" * 5000}), ["labels.l"]).labels["l"] == "w" * 5000
    with pytest.raises(InvalidArgument):
        manager.update(NS, Activation("long", labels={"": "x"}))
    manager.deactivate(NS, "long")


def test_labels_can_be_changed(manager: ActiveMounts) -> None:
    """As of everything else that has labels; nothing else changes."""
    options = ActivateOptions(temporary=True, labels={"a": "1", "b": "2"})
    done = manager.activate(NS, "one", [TMPFS], options)
    updated = manager.update(NS, Activation("one", labels={"a": "3"}), ["labels.a"])
    assert updated.labels == {"a": "3", "b": "2"}
    assert manager.update(NS, Activation("one", labels={"c": "4"})).labels == {"c": "4"}
    assert manager.info(NS, "one") == Activation("one", done.active, done.system, {"c": "4"})
    assert manager.list(NS, ["labels.c==4"]) == manager.list(NS, ["name==one"]) == manager.list(NS)
    assert manager.list(NS, ["labels.a"]) == []
    with pytest.raises(InvalidArgument, match="cannot update field"):
        manager.update(NS, updated, ["active"])
    with pytest.raises(NotFound):
        manager.update(NS, Activation("two"))


def test_a_lease_must_be_there(manager: ActiveMounts, house: House) -> None:
    """It is what garbage collection is told."""
    with pytest.raises(NotFound, match="lease gone"):
        manager.activate(NS, "one", [Mount("marking", "x")], ActivateOptions(lease="gone"))
    house.leases.add("mine")
    manager.activate(NS, "one", [Mount("marking", "x")], ActivateOptions(lease="mine", labels={"k": "v"}))
    (held,) = manager.collectibles()
    assert (held.namespace, held.lease, held.labels) == (NS, "mine", {"k": "v"})


@pytest.mark.parametrize("name", ["", "x" * 1025, "a\0b"])
def test_names_that_are_none(manager: ActiveMounts, name: str) -> None:
    with pytest.raises(InvalidArgument, match="is not valid"):
        manager.activate(NS, name, [TMPFS])
    with pytest.raises(FailedPrecondition, match="namespace is required"):
        manager.info("", "one")


def test_a_new_daemon_keeps_what_is_whole(manager: ActiveMounts, house: House) -> None:
    """What is mounted in full is kept; what is not, what was half made, and what nobody knows is unmounted."""
    temporary = ActivateOptions(temporary=True)
    whole = manager.activate(NS, "whole", [TMPFS, TMPFS], temporary)
    manager.activate(NS, "dead", [TMPFS, TMPFS], temporary)
    mounting.unmount(manager.targets / "2" / "1")
    half = manager._records.add(NS, "half", "", {})
    assert half == 3
    manager._places.make(half)
    manager._places.mount(half, 1, TMPFS, ())
    manager._places.make(77)
    manager._places.mount(77, 1, TMPFS, ())
    manager._places.mount(77, 2, Mount("marking", "x"), ())
    manager.close()

    new = house.open()
    done = threading.Event()
    new.clean_in_background(done.set)
    assert done.wait(20)
    assert new.list(NS) == [whole]
    assert house.mounted() == ["1/2", "1/1"]
    assert [each.name for each in new.targets.iterdir()] == ["1"]
    assert house.marking.unmounted == [f"{new.targets}/77/2"]
    new.activate(NS, "half", [TMPFS], temporary)
    new.close()


def test_mounts_without_their_records_are_removed(manager: ActiveMounts, house: House) -> None:
    """A database that is gone leaves no mount for ever."""
    manager.activate(NS, "one", [TMPFS, TMPFS], ActivateOptions(temporary=True))
    manager.close()
    for file in house.state.glob("mounts.db*"):
        file.unlink()
    new = house.open()
    new.activate(NS, "another", [TMPFS], ActivateOptions(temporary=True))
    assert house.mounted() == ["1/1"]
    new.deactivate(NS, "another")
    new.activate(NS, "third", [TMPFS], ActivateOptions(temporary=True))
    new._places.make(9)
    new.clean()
    assert house.mounted() == ["2/1"]
    assert [each.name for each in new.targets.iterdir()] == ["2"]
    new.close()
