"""Bundles: the directory of each task, with its spec, its rootfs and how to reach its shim (docs/containerd 4.2).

What is on disk is what survives the daemon: a restarted one knows its tasks from
here and nowhere else. Everything is synchronous file work.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from windlass.contracts.values import check_identifier
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, ResourceExhausted, in_words
from windlass_linux import mounting

logger = logging.getLogger(__name__)

BOOTSTRAP_FILE = "bootstrap.json"
ADDRESS_FILE = "address"
SHIM_BINARY_FILE = "shim-binary-path"
CHECKPOINT = "checkpoint"
MAX_STATE_FILE = 64 << 10
MAX_STACKED_MOUNTS = 1000
MAX_GROUP = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to reach a shim; ``runtime`` is set for a forked one and names what it serves.

    ``sandbox`` is the sandbox that the shim was started for, "" in a bundle whose own it is.
    """

    address: str
    version: int = 3
    protocol: str = "ttrpc"
    runtime: str = ""
    sandbox: str = ""

    @property
    def forked(self) -> bool:
        """Whether the shim was forked for this bundle alone."""
        return bool(self.runtime) and not self.sandbox


@dataclass(frozen=True, slots=True)
class Bundle:
    """One task's directories: ``path`` below the state directory, ``work`` below the root."""

    namespace: str
    id: str
    path: Path
    work: Path

    @property
    def rootfs(self) -> Path:
        """Where the shim mounts the container's root filesystem."""
        return self.path / "rootfs"

    def read_bootstrap(self) -> Bootstrap:
        """Return how to reach the shim; raises FailedPrecondition when the bundle does not say."""
        try:
            return parse_bootstrap(_read_bounded(self.path / BOOTSTRAP_FILE))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"bundle {self.path}: {BOOTSTRAP_FILE} cannot be used: {error}") from error
        return self._migrate_address()

    def write_bootstrap(self, bootstrap: Bootstrap) -> None:
        """Say how to reach the shim, all or nothing."""
        _write_whole(self.path / BOOTSTRAP_FILE, json.dumps(asdict(bootstrap)).encode(), 0o644)

    def read_shim_binary(self) -> str:
        """Return the path of the shim's executable, "" when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return _read_bounded(self.path / SHIM_BINARY_FILE).decode().strip()
        return ""

    def write_shim_binary(self, path: str) -> None:
        """Remember the shim's executable, which a later daemon, ours or another, calls to clean up."""
        _write_whole(self.path / SHIM_BINARY_FILE, path.encode(), 0o600)

    def init_pid(self) -> int:
        """Return the pid that the shim had written into the bundle, 0 when there is none."""
        with contextlib.suppress(OSError, ValueError), (self.path / "init.pid").open("rb") as file:
            return int(file.read(20))
        return 0

    def adopt_checkpoint(self, directory: str) -> str:
        """Move an unpacked checkpoint into the work directory, with which it goes; return where it is.

        Raises FailedPrecondition when it cannot be moved.
        """
        target = self.work / CHECKPOINT
        try:
            shutil.move(directory, target)
        except (OSError, shutil.Error) as error:
            raise FailedPrecondition(f"checkpoint for task {self.id} cannot be moved to its bundle: {error}") from error
        return str(target)

    def _migrate_address(self) -> Bootstrap:
        """Take the address from where shims of containerd 1.x left it (docs/containerd 4.11)."""
        try:
            address = _read_bounded(self.path / ADDRESS_FILE).decode().strip()
        except (OSError, ValueError) as error:
            raise FailedPrecondition(f"bundle {self.path} names no shim: {error}") from error
        bootstrap = Bootstrap(address, version=2)
        self.write_bootstrap(bootstrap)
        return bootstrap


def parse_bootstrap(data: bytes) -> Bootstrap:
    """Read bootstrap.json as we and containerd write it; raises ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    found = {str(key).lower(): item for key, item in value.items()}
    address, version = found.get("address"), found.get("version")
    protocol, runtime = found.get("protocol") or "ttrpc", found.get("runtime") or ""
    sandbox = found.get("sandbox") or ""
    if not isinstance(address, str) or not address or not isinstance(version, int):
        raise ValueError("address and version are needed")
    if not isinstance(protocol, str) or not isinstance(runtime, str) or not isinstance(sandbox, str):
        raise ValueError("protocol, runtime and sandbox must be strings")
    return Bootstrap(address, version, protocol, runtime, sandbox)


class Bundles:
    """All bundles of a daemon, below ``state/<namespace>/<id>`` and ``root/<namespace>/<id>``."""

    def __init__(self, state: Path, root: Path) -> None:
        """Create nothing yet."""
        self._state = state
        self._root = root

    def bundle(self, namespace: str, id: str) -> Bundle:
        """Return where a task's bundle is or would be; raises InvalidArgument for a bad name."""
        check_identifier("namespace", namespace)
        check_identifier("task", id)
        return Bundle(namespace, id, self._state / namespace / id, self._root / namespace / id)

    def create(self, namespace: str, id: str, spec: bytes) -> Bundle:
        """Make a bundle around the bytes of a spec; when that fails nothing is left.

        Raises AlreadyExists when the directory is there.
        """
        bundle = self.bundle(namespace, id)
        group = remapped_group(spec)
        try:
            _make_with_parents(bundle.path, 0o700)
        except FileExistsError as error:
            raise AlreadyExists(
                f"bundle {bundle.path} is in the way of task {id}: it belongs to no task; remove it"
            ) from error
        except OSError as error:
            raise storage_error(f"cannot make the bundle of task {id}", bundle.path, error) from error
        try:
            _fill(bundle, spec, group)
        except OSError as error:
            with logged(f"cannot remove the half-made bundle {bundle.path}"):
                self.remove(bundle)
            raise storage_error(f"cannot make the bundle of task {id}", bundle.path, error) from error
        return bundle

    def remove(self, bundle: Bundle) -> None:
        """Unmount and delete a bundle and its work directory; what is gone already is no error.

        Raises FailedPrecondition when files are left in the rootfs after unmounting;
        they may be somebody's data.
        """
        with contextlib.ExitStack() as stack:
            for path in self.hide(bundle):
                stack.callback(_remove_bundle, path)

    def hide(self, bundle: Bundle) -> list[Path]:
        """Unmount and rename a bundle, and return what is to be deleted by `sweep` at leisure.

        Its name is free then, its root filesystem not in use, and a half-deleted bundle
        is never taken for a task's.
        """
        with logged(f"cannot unmount {bundle.rootfs}"):
            mounting.detach_all(bundle.rootfs)
        return [hidden for path in (bundle.path, bundle.work) if (hidden := _hide(path)) is not None]

    def walk(self) -> Iterator[Bundle]:
        """Yield every bundle on disk; names that start with a dot are not bundles."""
        for namespace in _directories(self._state):
            for path in _directories(namespace):
                try:
                    yield self.bundle(namespace.name, path.name)
                except InvalidArgument as error:
                    logger.warning("directory %s is not a bundle: %s", path, error)

    def leftovers(self) -> list[Path]:
        """Return what interrupted removals have left, and work directories without a bundle.

        Only right while no bundle is being made or removed.
        """
        found = [
            path
            for namespace in _directories(self._state, hidden=True)
            for path in _directories(namespace, hidden=True)
            if path.name.startswith(".")
        ]
        for namespace in _directories(self._root):
            state = self._state / namespace.name
            for work in _directories(namespace, hidden=True):
                if work.name.startswith(".") or not (state / work.name).exists():
                    found.append(work)
        return found


def sweep(leftovers: Iterable[Path]) -> None:
    """Delete what `Bundles.leftovers` or `Bundles.hide` returned; what cannot be deleted is said in the log."""
    for path in leftovers:
        with logged(f"cannot delete {path}"):
            _remove_bundle(path)


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Log that something cannot be done, and go on."""
    try:
        yield
    except (OSError, Error) as error:
        logger.warning("%s: %s", what, error)


def remapped_group(spec: bytes) -> int | None:
    """Return the group that a spec maps group 0 of its container to, None when it maps none."""
    if b'"gidMappings"' not in spec:
        return None
    try:
        mappings = json.loads(spec)["linux"]["gidMappings"] or ()
        for mapping in mappings:
            if mapping["containerID"] == 0 and 0 <= int(mapping["hostID"]) <= MAX_GROUP:
                return int(mapping["hostID"])
    except (ValueError, KeyError, TypeError, RecursionError):
        # A malformed spec is the shim's to refuse, with its own words.
        return None
    return None


def _fill(bundle: Bundle, spec: bytes, group: int | None) -> None:
    if group is not None:
        os.chown(bundle.path, -1, group)
        bundle.path.chmod(0o710)
    bundle.rootfs.mkdir()
    bundle.rootfs.chmod(0o711)
    (bundle.path / "config.json").write_bytes(spec)
    try:
        _make_with_parents(bundle.work, 0o711)
    except FileExistsError:
        _remove_tree(bundle.work)
        bundle.work.mkdir(0o711)
    (bundle.path / "work").symlink_to(bundle.work)


def _make_with_parents(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode)
    except FileNotFoundError:
        for parent in (path.parent.parent, path.parent):
            parent.mkdir(0o711, parents=True, exist_ok=True)
            parent.chmod(0o711)
        path.mkdir(mode)


def storage_error(what: str, bundle: Path, error: OSError) -> Error:
    """Return that ``what`` cannot be done for want of a bundle's files, and why."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"{what}: no space left for {error.filename or bundle}; make room and try again")
    return FailedPrecondition(f"{what}: {in_words(error)}")


def _hide(path: Path) -> Path | None:
    """Rename a bundle to a name with a dot, and return that; None when there is no bundle."""
    for attempt in range(MAX_STACKED_MOUNTS):
        doomed = path.with_name(f".{path.name}{f'.{attempt}' if attempt else ''}")
        try:
            path.rename(doomed)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return doomed
    raise FailedPrecondition(f"bundle {path} cannot be deleted: too many left-overs of the same name beside it")


def _remove_bundle(path: Path) -> None:
    rootfs = path / "rootfs"
    mounting.detach_all(rootfs)
    try:
        _remove_empty(rootfs)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise FailedPrecondition(f"{rootfs} is not empty after unmounting, and so is kept: {error}") from error
    _remove_tree(path)


def _remove_empty(rootfs: Path) -> None:
    """Delete a rootfs in which is only what an OCI runtime makes for itself: directories, device nodes and links.

    Files with data are left, and with them the directory: OSError. rmdir(2) and
    unlink(2) do not touch what something is mounted on.
    """
    for directory, names, files in os.walk(rootfs, topdown=False):
        for path in (Path(directory, name) for name in (*files, *names)):
            mode = path.lstat().st_mode
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(mode):
                    path.rmdir()
                elif stat.S_ISLNK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    path.unlink()
    rootfs.rmdir()


def _remove_tree(path: Path) -> None:
    """Delete a directory whose content is mostly files, without following a link."""
    if path.is_symlink():
        path.unlink()
        return
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)  # noqa: PTH108 - an entry's path is a string
        path.rmdir()
    except FileNotFoundError:
        pass


def _directories(path: Path, hidden: bool = False) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and (hidden or not entry.name.startswith(".")):
            yield path / entry.name


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_STATE_FILE + 1)
    if len(data) > MAX_STATE_FILE:
        raise ValueError(f"{path.name} is longer than {MAX_STATE_FILE} bytes")
    return data


def _write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write a file so that a reader sees all of it or none; the state directory needs no fsync."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.rename(path)
