"""Layers against GNU tar: what it writes we apply as it would itself, and what we write it extracts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # fakes come from tests/diff/conftest.py, loaded by path

import pytest
from _pytest.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="layers are applied in a chroot: needs root"),
    pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not installed"),
]

FORMATS = ("ustar", "gnu", "posix", "oldgnu")
NAMES = st.sampled_from(["a", "b", "c", "ü", "with space", "n" * 120, "-dash", ".hidden"])
MODES = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o2711])
ATTRIBUTES = st.sampled_from([{}, {}, {"user.a": b"1", "user.b": b"\0\xff=\n"}])
NODES = st.recursive(
    st.one_of(
        st.tuples(st.just("file"), st.binary(max_size=3000), MODES, ATTRIBUTES),
        st.tuples(st.just("link"), st.sampled_from(["a", "../b", "/etc/passwd", "x" * 150]), MODES, ATTRIBUTES),
        st.tuples(st.just("fifo"), st.none(), MODES, st.just({})),
        st.tuples(st.just("device"), st.none(), MODES, st.just({})),
        st.tuples(st.just("sparse"), st.integers(1, 5), MODES, st.just({})),
        st.tuples(st.just("hardlink"), st.none(), MODES, st.just({})),
    ),
    lambda children: st.tuples(
        st.just("directory"), st.dictionaries(NAMES, children, max_size=4), MODES.map(lambda m: m | 0o700), ATTRIBUTES
    ),
    max_leaves=12,
)
TREES = st.dictionaries(NAMES, NODES, max_size=4)


def build(root: Path, tree: dict[str, Any], seen: list[Path]) -> None:
    """Make ``tree`` below ``root``; hard links go to any file that was made before."""
    for name, (kind, value, mode, attributes) in tree.items():
        path = root / name
        if kind == "directory":
            path.mkdir()
            build(path, value, seen)
        elif kind == "link":
            path.symlink_to(value)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(1, 7))
        elif kind == "hardlink" and seen:
            os.link(seen[0], path)
            continue
        elif kind == "sparse":
            with path.open("wb") as file:
                for piece in range(value):
                    file.seek(piece * 65536 + 100)
                    file.write(b"data" * 500)
                file.truncate(value * 70000)
        else:
            path.write_bytes(value or b"")
            seen.append(path)
        os.lchown(path, mode, 12345)
        if kind != "link":
            for key, data in attributes.items():
                os.setxattr(path, key, data)
            path.chmod(mode)
        os.utime(path, (1_500_000_000, 1_400_000_000 + mode), follow_symlinks=False)


def tar(*arguments: str) -> None:
    """Run GNU tar, which must not complain."""
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    subprocess.run(["tar", "--numeric-owner", *arguments], check=True, env=environment)


@pytest.fixture(scope="module")
def fakes(pytestconfig: Config) -> Any:
    """The module with the fakes of the unit tests."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("diff_fakes", pytestconfig.rootpath / "tests/diff/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    import sys

    sys.modules["diff_fakes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def differ(fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A differ whose workers are forked from here."""
    zygote = fakes.ForkZygote()
    zygote.preload(["windlass_diff.worker"])
    try:
        yield fakes.WalkingDiffer(zygote, tmp_path_factory.mktemp("diff") / "target", 30.0)
    finally:
        zygote.close()


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_what_gnu_tar_writes_we_apply(
    form: str, tree: dict[str, Any], differ: Any, fakes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sparse files and extended attributes included, in all its formats; the trees are equal to the last bit."""
    work = tmp_path_factory.mktemp("gnu")
    source, target, archive = work / "source", work / "target", work / "archive"
    source.mkdir()
    target.mkdir()
    build(source, tree, [])
    options = ["--sparse"] if form != "ustar" else []
    options += ["--xattrs"] if form == "posix" else []
    if form == "ustar":
        # It has no room for these; tar would refuse them, and so there is nothing to compare.
        for path in [*source.rglob("*")][::-1]:
            if len(path.name) > 90 or (path.is_symlink() and len(os.readlink(path)) > 100):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for path in [source, *source.rglob("*")]:
            os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    tar("-cf", str(archive), f"--format={form}", *options, "-C", str(source), ".")
    content = fakes.MemoryContent()

    desc = content.add(archive.read_bytes(), fakes.LAYER)
    differ.apply(content, desc, [fakes.Mount("bind", str(target), ("rbind",))])

    for path in source.rglob("*"):
        if form != "posix":
            for key in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, key, follow_symlinks=False)
    assert fakes.tree_facts(target) == fakes.tree_facts(source)
    shutil.rmtree(work)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_what_we_write_gnu_tar_extracts(
    tree: dict[str, Any], differ: Any, fakes: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A first layer of any tree."""
    work = tmp_path_factory.mktemp("ours")
    source, target, archive = work / "source", work / "target", work / "archive"
    source.mkdir()
    target.mkdir()
    build(source, tree, [])
    content = fakes.MemoryContent()

    desc = differ.compare(
        content, [], [fakes.Mount("bind", str(source), ("rbind", "ro"))], fakes.CompareOptions(fakes.LAYER)
    )
    archive.write_bytes(content.blobs[desc.digest])
    tar("-xpf", str(archive), "--same-owner", "--xattrs", "-C", str(target))

    assert fakes.tree_facts(target) == fakes.tree_facts(source)
    shutil.rmtree(work)
