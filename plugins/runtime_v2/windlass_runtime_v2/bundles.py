"""All bundles of a daemon: made, hidden, found again and deleted (docs/containerd 4.2).

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
from pathlib import Path

from windlass.contracts.values import check_identifier
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, in_words
from windlass_linux import mounting
from windlass_runtime_v2.bundle import Bundle
from windlass_runtime_v2.unprivileged import fitted
from windlass_storage import disks

logger = logging.getLogger(__name__)

MAX_STACKED_MOUNTS = 1000
MAX_GROUP = 0xFFFFFFFE


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
        """Make a bundle around the bytes of a spec, fitted to this daemon; when that fails nothing is left.

        Raises AlreadyExists when the directory is there, FailedPrecondition for what a rootless daemon cannot do.
        """
        bundle = self.bundle(namespace, id)
        spec = fitted(spec, id)
        group = remapped_group(spec)
        try:
            _make_with_parents(bundle.path, 0o700)
        except FileExistsError as error:
            raise AlreadyExists(
                f"bundle {bundle.path} is in the way of task {id}: it belongs to no task; remove it"
            ) from error
        except OSError as error:
            raise storage_error(f"make the bundle of task {id}", bundle.path, error) from error
        try:
            _fill(bundle, spec, group)
        except OSError as error:
            with logged(f"cannot remove the half-made bundle {bundle.path}"):
                self.remove(bundle)
            raise storage_error(f"make the bundle of task {id}", bundle.path, error) from error
        return bundle

    def remove(self, bundle: Bundle) -> None:
        """Unmount and delete a bundle and its work directory; what is gone already is not an error.

        Raises FailedPrecondition when files are left in the rootfs after unmounting;
        they may be a user's data.
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
    """Delete what `Bundles.leftovers` or `Bundles.hide` returned; what cannot be deleted is in the log."""
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


def storage_error(doing: str, bundle: Path, error: OSError) -> Error:
    """Return the error for a bundle whose files cannot be made: what failed, where, and the remedy."""
    found = disks.explained(error, doing, Path(error.filename or bundle))
    return found or FailedPrecondition(f"cannot {doing}: {in_words(error)}")


def _hide(path: Path) -> Path | None:
    """Rename a bundle to a name with a dot, and return that; None without a bundle."""
    for attempt in range(MAX_STACKED_MOUNTS):
        hidden = path.with_name(f".{path.name}{f'.{attempt}' if attempt else ''}")
        try:
            path.rename(hidden)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return hidden
    raise FailedPrecondition(f"bundle {path} cannot be deleted: too many remains of the same name are next to it")


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
