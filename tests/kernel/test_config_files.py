"""The files of a configuration: which are read, in which order, and how a later one lies over an earlier one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass.config import files
from windlass.config.toml import LIMIT, Table, parse


def write(folder: Path, **contents: str) -> Path:
    """Write ``a="…"`` as a.toml, and return the path of main.toml."""
    for name, text in contents.items():
        (folder / f"{name}.toml").write_text(text)
    return folder / "main.toml"


def names(found: files.Files) -> list[str]:
    """Return which files were read, in their order."""
    return [Path(table.mark.file).stem for table in found.tables]


def merged(*texts: str) -> Table:
    into = parse(texts[0], "0.toml")
    for number, text in enumerate(texts[1:], 1):
        files.merge(into, parse(text, f"{number}.toml"))
    return into


def test_a_file_that_need_not_be_there_is_no_problem(tmp_path: Path) -> None:
    """The default file; one that was asked for has to be there."""
    assert files.read(tmp_path / "no.toml", required=False) == files.Files()
    [problem] = files.read(tmp_path / "no.toml", required=True).problems
    assert "no.toml does not exist" in str(problem)


def test_imports_are_read_breadth_first_and_once(tmp_path: Path) -> None:
    """First all that a file names, then what those name: the last one read has the last word."""
    main = write(
        tmp_path,
        main='imports = ["a.toml", "b.toml"]',
        a='imports = ["c.toml"]',
        b='imports = ["c.toml", "./a.toml", "sub/../a.toml"]',
        c="",
    )

    found = files.read(main, required=True)

    assert (names(found), found.problems) == (["main", "a", "b", "c"], [])


def test_a_pattern_names_files_in_order_and_may_name_none(tmp_path: Path) -> None:
    """By name; a file that its own pattern matches does not import itself."""
    main = write(tmp_path, main='imports = ["*.toml", "none/*.toml"]', b="", a="", c="")

    found = files.read(main, required=True)

    assert (names(found), found.problems) == (["main", "a", "b", "c"], [])


@pytest.mark.parametrize("chain", [["main"], ["a", "main"], ["a", "b", "main"]])
def test_a_loop_is_named_in_full(tmp_path: Path, chain: list[str]) -> None:
    """containerd passes over it; whoever wrote it meant something else."""
    before = ["main", *chain]
    contents = {one: f'imports = ["{other}.toml"]' for one, other in zip(before, chain, strict=False)}

    [problem] = files.read(write(tmp_path, **contents), required=True).problems

    round_trip = " -> ".join(str(tmp_path / f"{name}.toml") for name in before)
    assert round_trip in str(problem)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('imports = ["gone.toml"]', "gone.toml does not exist"),
        ("\nimports = [7]", '"imports" must be a list of paths'),
        ('imports = [""]', '"imports" must be a list of paths'),
        ('imports = ["a\\u0000b"]', '"imports" must be a list of paths'),
        ('imports = ["."]', "cannot read"),
        ("imports = [", "not TOML"),
    ],
)
def test_a_mistake_names_the_file_that_has_it(tmp_path: Path, text: str, words: str) -> None:
    """And its line; the files that are well are read all the same."""
    main = write(tmp_path, main='imports = ["bad.toml", "good.toml"]', bad=text, good="")

    found = files.read(main, required=True)

    assert "good" in names(found)
    [problem] = found.problems
    assert str(problem).startswith(f"{tmp_path}/bad.toml:") and words in str(problem)


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    """A device or a log that somebody imports does not fill the memory."""
    main = write(tmp_path, main="# " + "x" * LIMIT)
    [problem] = files.read(main, required=True).problems
    assert f"longer than {LIMIT >> 20} MiB" in str(problem)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    main = tmp_path / "main.toml"
    main.write_bytes(b"\xef\xbb\xbfversion = 4\n")
    [table] = files.read(main, required=True).tables
    assert table["version"] == 4


def test_the_number_of_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a program writes, each naming the next, end somewhere."""
    monkeypatch.setattr(files, "MAX_FILES", 3)
    contents = {f"f{number}": f'imports = ["f{number + 1}.toml"]' for number in range(9)}
    main = write(tmp_path, main='imports = ["f0.toml"]', **contents)

    found = files.read(main, required=True)

    assert names(found) == ["main", "f0", "f1"]
    assert "more than 3 files" in str(found.problems[0])


def test_a_link_is_where_it_was_named(tmp_path: Path) -> None:
    """What a link's file imports is beside the link, as containerd has it, not beside what it points to."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/real.toml").write_text('imports = ["b.toml"]')
    os.symlink("elsewhere/real.toml", tmp_path / "link.toml")
    main = write(tmp_path, main='imports = ["link.toml"]', b="")

    found = files.read(main, required=True)

    assert (names(found), found.problems) == (["main", "link", "b"], [])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (('root = "/a"', 'root = "/b"'), {"root": "/b"}),
        (('root = "/a"', 'root = ""'), {"root": "/a"}),
        (("oom_score = -999", "oom_score = 0"), {"oom_score": -999}),
        (("", 'root = ""'), {"root": ""}),
        (('disabled_plugins = ["a"]', 'disabled_plugins = ["b", "a"]'), {"disabled_plugins": ["a", "b"]}),
        (("[debug]\nuid = 1\ngid = 2", "[debug]\nuid = 0\ngid = 3"), {"debug": {"uid": 1, "gid": 3}}),
        (
            ("[plugins.x]\na = 1\n[plugins.x.t]\nb = 2", "[plugins.x]\na = 0\n[plugins.x.t]\nc = 3"),
            {"plugins": {"x": {"a": 0, "t": {"b": 2, "c": 3}}}},
        ),
        (
            ("[proxy_plugins.x]\ntype = 'a'\naddress = 'b'", "[proxy_plugins.x]\ntype = 'c'"),
            {"proxy_plugins": {"x": {"type": "c"}}},
        ),
        (("[timeouts]\na = '1s'\nb = '2s'", "[timeouts]\na = '0s'"), {"timeouts": {"a": "0s", "b": "2s"}}),
        (("[plugins.x]\nl = [1, 2]", "[plugins.x]\nl = [3]"), {"plugins": {"x": {"l": [3]}}}),
        (("[plugins.x]\na = 1", "[plugins.x]\na = {}"), {"plugins": {"x": {"a": {}}}}),
    ],
)
def test_a_later_file_lies_over_an_earlier_one(texts: tuple[str, str], expected: dict[str, object]) -> None:
    """As containerd merges: lists of plugins add up, a zero overrides in blocks of plugins only, a proxy is whole."""
    assert merged(*texts) == expected


def test_what_was_merged_knows_where_it_is_from() -> None:
    """A message about a value names the file that said it."""
    table = merged("[plugins.x]\na = 1\nb = 1\n", "\n[plugins.x]\nb = 2\n")

    assert str(table["plugins"]["x"].place("a")) == "0.toml:2"
    assert str(table["plugins"]["x"].place("b")) == "1.toml:3"
