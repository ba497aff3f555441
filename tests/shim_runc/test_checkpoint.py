"""Checkpoints: what the OCI runtime is asked for, and what the client gets to know of criu."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shim_runc.fake_runtime import Parts

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition, InvalidArgument
from windlass_shim_runc import checkpoint, messages
from windlass_shim_runc.messages import AnyMessage, CheckpointOptions, CheckpointTaskRequest, Options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")


class Program:
    """An OCI runtime that is a program; it does what the test says with the directory that criu works in."""

    def __init__(self, act: Callable[[Path], None] = lambda work: None, is_runc: bool = False) -> None:
        self.environment = {"PATH": "/no/such/place:/nor/this"}
        self.is_runc = is_runc
        self.flags: list[str] = []
        self._act = act

    async def run(self, verb: str, id: str, *flags: str, timeout: float) -> None:
        self.flags = [verb, id, *flags]
        self._act(Path(self.after("--work-path")))

    def after(self, flag: str) -> str:
        """Return the value of a flag."""
        return self.flags[self.flags.index(flag) + 1]


def fails(log: str | None, error: type[Error] = Error) -> Callable[[Path], None]:
    """Return what a criu does that writes this log and fails."""

    def act(work: Path) -> None:
        if log is not None:
            (work / "dump.log").write_text(log)
        raise error("OCI runtime checkpoint failed: exit status 1")

    return act


def dump(
    parted: Parts,
    bundle: Path,
    program: Program,
    wanted: CheckpointOptions | None = None,
    path: str = "",
    options: Options | None = None,
) -> str:
    """Make a checkpoint, and return where it is."""
    found: list[str] = []
    request = CheckpointTaskRequest(id="box", path=path, options=messages.pack(wanted or CheckpointOptions()))

    async def work() -> None:
        job = checkpoint.Job(program, "box", str(bundle), options or Options())
        found.append(await job.dump(request))

    parted.run(work())
    return found[0]


def test_the_request_says_where_before_the_options_do(parted: Parts, tmp_path: Path) -> None:
    """The path of the request, then the checkpoint's, then the container's; it is made for root alone."""
    ours, theirs, runtimes = (str(tmp_path / name) for name in ("ours", "theirs", "runtimes"))
    wanted, options = CheckpointOptions(image_path=theirs), Options(criu_image_path=runtimes)
    program = Program()
    assert dump(parted, tmp_path, program, wanted, ours, options) == ours
    assert dump(parted, tmp_path, program, wanted, "", options) == theirs
    assert dump(parted, tmp_path, program, None, "", options) == runtimes
    assert program.after("--image-path") == runtimes
    assert Path(runtimes).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("image", "work"), [("", ""), ("here", ""), ("/{tmp}/image", "here")])
def test_a_path_that_depends_on_the_shim_is_refused(parted: Parts, tmp_path: Path, image: str, work: str) -> None:
    """The runtime is not called then."""
    program = Program()
    wanted = CheckpointOptions(image_path=image.replace("/{tmp}", str(tmp_path)), work_path=work)
    with pytest.raises(InvalidArgument, match=r"'(here)?' is not an absolute path"):
        dump(parted, tmp_path, program, wanted)
    assert program.flags == []


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [
        (CheckpointOptions(), ["--leave-running"]),
        (CheckpointOptions(exit=True), []),
        (CheckpointOptions(exit=True, open_tcp=True, terminal=True), ["--tcp-established", "--shell-job"]),
        (
            CheckpointOptions(exit=True, external_unix_sockets=True, file_locks=True),
            ["--ext-unix-sk", "--file-locks"],
        ),
        (
            CheckpointOptions(exit=True, empty_namespaces=("network", "ipc")),
            ["--empty-ns", "network", "--empty-ns", "ipc"],
        ),
        (
            CheckpointOptions(exit=True, cgroups_mode="strict", parent_path="../before"),
            ["--manage-cgroups-mode", "strict", "--parent-path", "../before"],
        ),
    ],
)
def test_each_option_is_a_flag_of_the_runtime(wanted: CheckpointOptions, flags: list[str]) -> None:
    """The container runs on unless the client wants it to exit."""
    assert checkpoint.dump_flags(wanted) == flags


def test_criu_works_in_a_directory_that_goes_afterwards(parted: Parts, tmp_path: Path) -> None:
    """In the bundle, in its `work` where the daemon has made one; one that the client chose stays."""
    seen: list[Path] = []
    program = Program(lambda work: seen.append(work) if work.is_dir() else None)
    image = str(tmp_path / "image")
    dump(parted, tmp_path, program, path=image)
    (tmp_path / "work").mkdir()
    dump(parted, tmp_path, program, path=image)
    chosen = tmp_path / "chosen"
    dump(parted, tmp_path, program, CheckpointOptions(work_path=str(chosen)), image)
    assert seen == [tmp_path / "criu-work", tmp_path / "work/criu-work", chosen]
    assert [place.exists() for place in seen] == [False, False, True]


LOG = f"""(00.01) Warn: nothing
(00.02) Error (criu/x.c:1): {checkpoint.HARMLESS}
(00.03) Error (criu/cr-dump.c:7): Can't dump a connected TCP socket
(00.04) Error (criu/cr-dump.c:9): Dumping FAILED.
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (LOG, "criu said: (00.03) Error (criu/cr-dump.c:7): Can't dump a connected TCP socket; its log is {bundle}"),
        ("(00.01) Warn: nothing\n", "criu said: nothing; its log is {bundle}"),
        (None, "criu left no log"),
    ],
)
def test_the_error_has_the_first_complaint_of_criu(parted: Parts, tmp_path: Path, log: str | None, said: str) -> None:
    """Not the one after which criu goes on; the log itself is kept in the bundle when its directory goes."""
    with pytest.raises(Error) as caught:
        dump(parted, tmp_path, Program(fails(log)), path=str(tmp_path / "image"))
    reason = "OCI runtime checkpoint failed: exit status 1; "
    assert str(caught.value) == reason + said.format(bundle=tmp_path / "criu-dump.log")
    assert not (tmp_path / "criu-work").exists()
    if log is not None:
        assert (tmp_path / "criu-dump.log").read_text() == log


def test_an_explained_error_keeps_its_class(parted: Parts, tmp_path: Path) -> None:
    """The client's status is that of what went wrong."""
    with pytest.raises(DeadlineExceeded, match="criu said: nothing"):
        dump(parted, tmp_path, Program(fails("", DeadlineExceeded)), path=str(tmp_path / "image"))


def test_a_runc_without_criu_is_refused_before_it_is_called(parted: Parts, tmp_path: Path) -> None:
    """With where it was looked for, and the remedy; a crun has criu built in."""
    program = Program(is_runc=True)
    image = str(tmp_path / "image")
    with pytest.raises(FailedPrecondition, match=r"criu was not found in /no/such/place:/nor/this; install it or set"):
        dump(parted, tmp_path, program, path=image)
    assert program.flags == []
    criu = tmp_path / "criu"
    criu.touch(0o755)
    program.environment["PATH"] += f":{tmp_path}"
    assert dump(parted, tmp_path, program, path=image) == image


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (AnyMessage(type_url="x.Y"), InvalidArgument, "checkpoint options of type x.Y are not known"),
        (AnyMessage(type_url=f"a/{CheckpointOptions._name}", value=b"\xff"), Error, "options cannot be parsed"),
    ],
)
def test_options_that_are_none_are_refused(options: AnyMessage, error: type[Error], words: str) -> None:
    """Without any there are defaults."""
    with pytest.raises(error, match=words):
        checkpoint.parse(options)
    assert checkpoint.parse(AnyMessage()) == CheckpointOptions()


@pytest.mark.parametrize(
    ("terminal", "options", "more"),
    [(False, Options(), []), (True, Options(no_pivot_root=True), ["--shell-job", "--no-pivot"])],
)
def test_a_restore_may_do_what_a_checkpoint_may(
    tmp_path: Path, terminal: bool, options: Options, more: list[str]
) -> None:
    """Whatever the checkpoint was allowed: its image does not say."""
    job = checkpoint.Job(Program(), "box", str(tmp_path), options)
    work = tmp_path / "criu-work"
    assert job.restore_flags("/image", terminal) == [
        *("--image-path", "/image", "--work-path", str(work), "--detach", "--no-subreaper"),
        *("--tcp-established", "--ext-unix-sk", "--file-locks", *more),
    ]
    (work / "restore.log").write_text("(00.1) Error (criu/x.c:1): no room\n")
    assert "criu said: (00.1) Error (criu/x.c:1): no room" in str(job.explained_restore(Error("restore failed")))
    job.end_restore()
    assert [path.name for path in tmp_path.iterdir()] == ["criu-restore.log"]
