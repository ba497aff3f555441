"""What made published advisories about OCI runtimes possible is not possible here: docs/oci-security.md has the table.

Each test asks our own guard, with inputs that harm nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from oci_runtime.bundles import Box, Runtime, Spec, spec

from windlass.errors import Error, InvalidArgument
from windlass_linux import calls as linux
from windlass_linux import sealing
from windlass_oci_runtime import devices, ending, procfs, rootfs
from windlass_oci_runtime.creation import Creation
from windlass_oci_runtime.entry import Entry
from windlass_oci_runtime.inside import Root
from windlass_oci_runtime.report import Failure

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
COPIES = [sealing.sealed, sealing.in_memory]


def apart(check: Callable[[], None]) -> str:
    """Run a check in a process with a mount namespace of its own; return what it raises, "" for nothing."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
            check()
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


def sets(*names: str) -> dict[str, list[str]]:
    """Return capabilities that a process has and may have."""
    return {each: [*names] for each in ("bounding", "effective", "permitted")}


def waiting(runtime: Runtime, **more: object) -> Box:
    return runtime.create(spec("true", **more))


def contents(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what is below a directory, with mode, owner and size."""
    found = {}
    for path in sorted(directory.rglob("*")):
        about = path.lstat()
        found[str(path.relative_to(directory))] = (about.st_mode, about.st_uid, about.st_size)
    return found


@needs_root
@pytest.mark.parametrize("make", COPIES)
def test_a_sealed_program_is_executed_and_never_written(make: Callable[[str], int]) -> None:
    """CVE-2019-5736: the file that is behind /proc/PID/exe is not the host's to write."""
    program = make(sys.executable)
    try:
        assert sealing.is_sealed(program)
        for mode in ("wb", "r+b"):
            with pytest.raises(OSError) as refused, open(f"/proc/self/fd/{program}", mode, buffering=0) as file:
                file.write(b"x")
            # ETXTBSY is not enough: the program ends some time.
            assert refused.value.errno in (errno.EROFS, errno.EPERM)
        code = "import os; from windlass_linux import sealing; print(sealing.is_own_sealed())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            executable=f"/proc/self/fd/{program}",
            pass_fds=[program],
            capture_output=True,
            text=True,
        )
        assert done.stdout == "True\n", done.stderr
    finally:
        os.close(program)


def test_a_program_of_the_host_counts_as_not_sealed() -> None:
    with open(sys.executable, "rb") as file:
        assert sealing.is_sealed(file.fileno()) == bool(os.statvfs(sys.executable).f_flag & os.ST_RDONLY)


def test_the_executable_seals_itself(runtime: Runtime) -> None:
    """CVE-2019-5736: what waits in a container for its start has nothing of the host's behind /proc/PID/exe."""
    document = spec("true", cgroupsPath=f"/windlass-oci-{os.getpid()}/sealed")
    command = [sys.executable, "-m", "windlass_oci_runtime.cli.main", "--root", runtime.root]
    bundle = runtime.bundle(document)
    pid_file = runtime.directory / "pid"
    subprocess.run(
        [*command, "create", "-b", bundle, "--pid-file", str(pid_file), "sealed"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    try:
        with open(f"/proc/{pid_file.read_text()}/exe", "rb") as file:
            assert sealing.is_sealed(file.fileno())
    finally:
        subprocess.run([*command, "delete", "--force", "sealed"], check=True, timeout=60)


def test_init_has_nothing_of_the_host_open_while_it_waits(runtime: Runtime) -> None:
    """CVE-2024-21626, and whatever joins its PID namespace meanwhile."""
    stray = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(stray, True)
    try:
        box = waiting(runtime)
    finally:
        os.close(stray)
    directory = f"/proc/{box.pid}/fd"
    opened = {name: os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}
    streams = {opened.pop(name) for name in ("0", "1", "2")}
    root = os.stat(f"/proc/{box.pid}/root")
    box.kill()
    assert streams <= {"/dev/null", "/null"}, "it is the host's, by a mount that the container does not have"
    assert all(each.startswith("pipe:") or each.endswith("exec.fifo") for each in opened.values()), opened
    assert (root.st_dev, root.st_ino) != (os.stat("/").st_dev, os.stat("/").st_ino)


def test_the_program_has_its_streams_alone(runtime: Runtime) -> None:
    """CVE-2024-21626."""
    stray = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(stray, True)
    try:
        code, output = runtime.run(spec("ls", "/proc/self/fd"))
        assert (code, output.split()) == (0, ["0", "1", "2", "3"]), "the last one is the directory"
        box = runtime.create(spec("sleep", "60"))
        box.start()
        try:
            assert box.exec(["ls", "/proc/self/fd"])[1].split() == ["0", "1", "2", "3"]
        finally:
            box.kill()
    finally:
        os.close(stray)


@pytest.mark.parametrize("number", [3, 7, 9, 12])
def test_a_working_directory_is_inside(runtime: Runtime, number: int) -> None:
    """CVE-2024-21626: not by a descriptor of /proc either."""
    document = spec("true")
    document["process"]["cwd"] = f"/proc/self/fd/{number}"
    with pytest.raises(Failure, match=r"no such file|not a directory|outside of the container's root"):
        runtime.create(document)


def test_an_exec_shows_no_root_but_the_containers(runtime: Runtime) -> None:
    """What is in the container's PID namespace is in its mount namespace already, and no process of it can look in."""
    box = runtime.create(spec("sleep", "60"))
    box.start()
    try:
        # A watcher with CAP_SYS_PTRACE notes each root that it sees in its own /proc.
        test = f"[ -e $d/root{runtime.directory} ] && echo seen"
        watched = f"echo watching; while :; do for d in /proc/[0-9]*; do {test}; done; done"
        process = {**spec("sh", "-c", watched)["process"], "capabilities": sets("CAP_SYS_PTRACE")}
        reader, writer = os.pipe2(os.O_CLOEXEC)
        entry = Entry(box.container, process)
        entry.spawn({1: writer, 2: writer})
        watcher = entry.settle()
        os.close(writer)
        for _ in range(15):
            assert box.exec(["true"])[0] == 0
        os.kill(watcher, 9)
        os.waitpid(watcher, 0)
        with os.fdopen(reader) as file:
            assert file.read() == "watching\n"
    finally:
        box.kill()


@needs_root
def test_writes_to_proc_go_to_proc(tmp_path: Path) -> None:
    """CVE-2019-16884, 2019-19921, 2025-52881, youki's CVE-2025-62596: something else is mounted where /proc is."""

    def check() -> None:
        linux.mount("tmpfs", "/proc", "tmpfs")
        os.makedirs("/proc/sys/kernel")
        Path("/proc/sys/kernel/hostname").write_text("")
        procfs.open_below("/proc/sys", "kernel/hostname", os.O_WRONLY)

    assert "FailedPrecondition: /proc/sys is not a directory of procfs" in apart(check)


@needs_root
@pytest.mark.parametrize("how", ["link", "mount", "another file of procfs"])
def test_files_of_proc_are_not_redirected(tmp_path: Path, how: str) -> None:
    """CVE-2025-52881: a mount over a single file, also of a file that is procfs's own but means something else."""
    (tmp_path / "file").write_text("")

    def check() -> None:
        source = "/proc/self/sched" if how.startswith("another") else str(tmp_path / "file")
        linux.mount(source, "/proc/sys/kernel/domainname", "", linux.MS_BIND)
        procfs.open_below("/proc/sys", "kernel/domainname", os.O_WRONLY)

    def link() -> None:
        procfs.open_below("/proc", "self/cwd/x", os.O_RDONLY)

    assert "OSError" in (said := apart(link if how == "link" else check)), said


@needs_root
def test_labels_go_to_a_proc_that_nobody_else_has() -> None:
    """CVE-2019-16884, 2023-28642, 2025-52881: whatever is at /proc, the file is this process's own."""

    def check() -> None:
        linux.mount("tmpfs", "/proc", "tmpfs")
        descriptor = procfs.open_own("comm", os.O_WRONLY)
        os.write(descriptor, b"labelled")
        name = ctypes.create_string_buffer(16)
        linux.prctl(linux.PR_GET_NAME, ctypes.addressof(name))
        assert name.value == b"labelled", name.value

    assert apart(check) == ""


@needs_root
@pytest.mark.parametrize("stand_in", ["file", "other device", "link"])
def test_masks_are_made_of_the_null_device_alone(tmp_path: Path, stand_in: str) -> None:
    """CVE-2025-31133, youki's CVE-2025-62161."""
    (tmp_path / "file").write_text("")

    def check() -> None:
        source = {"file": str(tmp_path / "file"), "other device": "/dev/zero"}.get(stand_in, "")
        if source:
            linux.mount(source, "/dev/null", "", linux.MS_BIND)
        else:
            linux.mount("tmpfs", "/dev", "tmpfs")
            os.symlink(tmp_path / "file", "/dev/null")
        rootfs.null_device()

    assert "it is not the device 1:3" in apart(check)


def test_the_images_null_device_is_not_used(runtime: Runtime, tmp_path: Path) -> None:
    """CVE-2025-31133, crun's CVE-2026-88265: neither for masks nor for the standard streams."""
    (runtime.rootfs / "target").write_text("untouched")
    (runtime.rootfs / "dev/null").symlink_to("/target")
    (runtime.rootfs / "secret").write_text("seen")
    document = spec("sh", "-c", "cat /secret; stat -c %t:%T /secret", maskedPaths=["/secret"])
    document["mounts"] = [each for each in document["mounts"] if each["destination"] == "/proc"]
    with pytest.raises(Failure, match="/dev/null exists in the root file system and is not that device"):
        runtime.create(document)
    assert (runtime.rootfs / "target").read_text() == "untouched"
    assert (runtime.rootfs / "target").stat().st_uid == 0


def test_masks_are_read_only(runtime: Runtime) -> None:
    """Root in a container cannot change the owner or the mode of the host's /dev/null by a mask."""
    before = os.stat("/dev/null")
    (runtime.rootfs / "secret").write_text("seen")
    (runtime.rootfs / "bin/chmod").symlink_to("busybox")
    (runtime.rootfs / "hidden").mkdir()
    script = "chmod 600 /secret; touch /hidden/x; mount -o remount,rw /hidden; stat -c %t:%T /secret; ls /hidden"
    code, output = runtime.run(spec("sh", "-c", script, maskedPaths=["/secret", "/hidden"]))
    assert code == 0 and output.splitlines()[-1] == "1:3"
    assert output.count("Read-only file system") == 2
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_a_directory_that_the_image_has_as_a_link_leads_nowhere(runtime: Runtime, tmp_path: Path, name: str) -> None:
    """CVE-2023-27561, 2023-28642, 2026-41579, crun's 2019-18837 and 2026-47766, youki's 2025-54867."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ptmx").write_text("the host's")
    (runtime.rootfs / name).rmdir()
    (runtime.rootfs / name).symlink_to(outside)
    document = spec("true")
    document["mounts"] = [each for each in document["mounts"] if each["destination"] == f"/{name}"]
    document["mounts"] = document["mounts"] if name == "proc" else []
    if name == "sys":
        document["mounts"] = [{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}]
    before = contents(outside)
    try:
        runtime.run(document)
    except Failure as error:
        assert "too many levels of symbolic links" in str(error)
    else:
        assert name == "dev"
    assert contents(outside) == before


EXCHANGE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, os.fsencode(sys.argv[1]), -100, os.fsencode(sys.argv[2]), 2)  # RENAME_EXCHANGE
"""


def test_a_race_for_a_mounts_place_is_won_by_nobody(runtime: Runtime, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: a directory of a shared volume is a link to the host's every other moment."""
    outside, volume = tmp_path / "outside", tmp_path / "volume"
    (volume / "way").mkdir(parents=True)
    outside.mkdir()
    (volume / "link").symlink_to(outside)
    # A process: the runtime is for one that has a single thread.
    other = subprocess.Popen([sys.executable, "-c", EXCHANGE, str(volume / "way"), str(volume / "link")])
    try:
        for _ in range(12):
            document = spec("true")
            document["mounts"] += [
                {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind"]},
                {"destination": "/volume/way/in", "type": "tmpfs", "source": "tmpfs"},
            ]
            try:
                assert runtime.run(document)[0] == 0
            except Failure as error:
                assert "mount" in str(error)
    finally:
        other.kill()
        other.wait()
    assert list(outside.iterdir()) == []
    assert not any(str(outside) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_a_device_that_becomes_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race of CVE-2021-30465 for modes and owners: the name is the attacker's again once it has been made."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    (tmp_path / "root/dev").mkdir(parents=True)

    def mknod(name: str, *_: int, dir_fd: int) -> None:
        os.symlink(victim, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", mknod)
    root = Root(os.open(tmp_path / "root", os.O_PATH))
    try:
        with pytest.raises(InvalidArgument, match="/dev/null exists in the root file system and is not that device"):
            devices.make_all(root, [])
    finally:
        os.close(root.descriptor)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_nothing_is_inheritable_unless_it_is_said(runtime: Runtime) -> None:
    """CVE-2022-29162, crun's CVE-2022-27650."""
    code, output = runtime.run(spec("grep", "-E", "Cap(Inh|Amb)", "/proc/self/status"))
    assert (code, {int(line.split()[1], 16) for line in output.splitlines()}) == (0, {0})


def test_an_exec_has_the_capabilities_that_it_is_given(runtime: Runtime) -> None:
    """Youki's CVE-2025-27612: no more than those; crun's CVE-2026-30892: user 1 is user 1."""
    box = runtime.create(spec("sleep", "60"))
    box.start()
    try:
        _, output = box.exec(["grep", "Cap", "/proc/self/status"], capabilities=sets("CAP_KILL"))
        found = {line.split(":")[0]: int(line.split()[1], 16) for line in output.splitlines()}
        assert found == {"CapInh": 0, "CapPrm": 32, "CapEff": 32, "CapBnd": 32, "CapAmb": 0}
        _, output = box.exec(["id"], user={"uid": 1, "gid": 0})
        assert output.startswith("uid=1 gid=0")
    finally:
        box.kill()


def test_devices_are_refused_unless_a_rule_allows_them(runtime: Runtime) -> None:
    """GHSA-g54h-m393-cpwq: a specification without rules allows the default devices alone."""
    (runtime.rootfs / "bin/mknod").symlink_to("busybox")
    # /dev/mem: the cgroup refuses it before the driver is asked.
    code, output = runtime.run(spec("sh", "-c", "mknod /x c 1 1; head -c 1 /x; head -c 1 /dev/zero | wc -c"))
    assert (code, output.splitlines()[-1]) == (0, "1")
    assert "Operation not permitted" in output


def test_control_groups_that_are_read_only_stay_so(runtime: Runtime) -> None:
    """CVE-2023-25809."""
    document = spec("sh", "-c", "mount | grep cgroup | grep -v '(ro'; mkdir /sys/fs/cgroup/*/x && echo made; true")
    (runtime.rootfs / "bin/mkdir").symlink_to("busybox")
    options = ["nosuid", "noexec", "nodev", "relatime", "ro"]
    document["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options},
    ]
    code, output = runtime.run(document)
    assert code == 0
    assert "made" not in output and not any(" type cgroup" in line for line in output.splitlines())


def test_nothing_is_written_into_an_image(runtime: Runtime) -> None:
    """Krun's CVE-2025-24965: no file of ours is in a root file system, so none can be a link of the image's."""
    before = contents(runtime.rootfs)
    assert runtime.run(spec("true"))[0] == 0
    assert contents(runtime.rootfs) == before


def test_a_very_long_path_of_a_namespace_is_refused(runtime: Runtime) -> None:
    """CVE-2021-43784: no length of ours is 16 bits, and nothing is packed for another program to unpack."""
    namespaces = [{"type": "mount"}, {"type": "network", "path": "/proc/" + "x" * 70_000}]
    with pytest.raises(Error, match=r"network namespace .*file name too long"):
        runtime.create(spec("true", namespaces=namespaces))


def test_a_bundle_that_changes_meanwhile_is_read_once(runtime: Runtime) -> None:
    """A container is what its `config.json` said when it was made; an exec too, from our own state."""
    box = runtime.create(spec("sleep", "60", seccomp={"defaultAction": "SCMP_ACT_ALLOW"}))
    Path(runtime.bundle({"ociVersion": "1.2.0"}), "config.json").write_text("not JSON")
    try:
        box.start()
        assert "Seccomp:\t2" in box.exec(["grep", "Seccomp:", "/proc/self/status"])[1]
    finally:
        box.kill()


def terminal(runtime: Runtime, document: Spec, id: str) -> tuple[Creation, socket.socket]:
    """Make a container with a terminal up to its report; return the socket that gets the master, too."""
    document["process"]["terminal"] = True
    document["linux"]["cgroupsPath"] = f"/windlass-oci-{os.getpid()}/{id}"
    path = str(runtime.directory / f"{id}.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        creation = Creation(runtime.root, id, runtime.bundle(document))
        creation.spawn({}, path)
        return creation, listener.accept()[0]


def test_the_console_is_the_containers_terminal(runtime: Runtime) -> None:
    """CVE-2025-52565: the device that its program has as its standard streams."""
    script = "[ $(stat -c %t:%T /dev/console) = $(stat -L -c %t:%T /proc/self/fd/0) ] && echo same > /dev/console"
    creation, peer = terminal(runtime, spec("sh", "-c", script), "console")
    with peer:
        pid = creation.settle()
        name, (master,), _, _ = socket.recv_fds(peer, 100, 1)
    with os.fdopen(master, "rb", buffering=0) as file:
        creation.container.start()
        assert name == b"/dev/pts/0"
        assert file.read(100) == b"same\r\n"
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    ending.delete(creation.container)


@pytest.mark.parametrize("what", ["/dev/console", "/dev/pts/ptmx"])
def test_a_console_is_not_led_elsewhere(runtime: Runtime, tmp_path: Path, what: str) -> None:
    """CVE-2025-52565, crun's CVE-2026-88264: by a link of an image without a /dev of its own."""
    (tmp_path / "file").write_text("")
    place = runtime.rootfs / what.lstrip("/")
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "file" if what == "/dev/console" else "/dev/null")
    document = spec("true")
    keep = ("/proc", "/dev/pts") if what == "/dev/console" else ("/proc",)
    document["mounts"] = [each for each in document["mounts"] if each["destination"] in keep]
    creation, peer = terminal(runtime, document, "led")
    with peer, pytest.raises(Failure, match=r"terminal: .*too many levels of symbolic links"):
        creation.settle()
    creation.undo()
    os.waitpid(creation.pid, 0)
    assert (tmp_path / "file").read_text() == ""


def test_a_multiplexer_of_the_image_is_refused(runtime: Runtime) -> None:
    """A file where devpts should be."""
    document = spec("true")
    document["mounts"] = [each for each in document["mounts"] if each["destination"] == "/proc"]
    (runtime.rootfs / "dev/pts").mkdir()
    (runtime.rootfs / "dev/pts/ptmx").write_text("")
    creation, peer = terminal(runtime, document, "refused")
    with peer, pytest.raises(Failure, match="terminal: /dev/pts/ptmx: it is not the multiplexer of a devpts"):
        creation.settle()
    creation.undo()
    os.waitpid(creation.pid, 0)
