"""Who a process runs as, by the files of an image that may lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass.contracts.mounts import Mount
from windlass.errors import Error, InvalidArgument, NotFound, OutOfRange
from windlass_oci.accounts import read_accounts, read_files
from windlass_oci.users import Accounts, User, find_user, is_numeric

ACCOUNTS = Accounts(
    passwd="huge:x:4294967296:0:::\nlong:x:999999999999999999999999:0:::\nbelow:x:-1:0:::\nroot:x:0:0::/root:/bin/sh\n"
    "web:x:33:34:a\x0bb:::\nbroken\n7:x:1007:1008:::\n7zip:x:5:6:::\n",
    group="hugegroup:x:4294967296:\nroot:x:0:\nwheel:x:10:root,web\nlogs:x:44:web\nshort:x\n",
)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (10,))),
        ("root", User(0, 0, (10,))),
        ("0", User(0, 0, (10,))),
        ("web", User(33, 34, (10, 44))),
        ("33", User(33, 34, (10, 44))),
        ("web:logs", User(33, 44, (10, 44))),
        ("33:7", User(33, 7, (10, 44))),
        ("1000", User(1000, 0)),
        ("1000:1000", User(1000, 1000)),
        ("2147483647:2147483647", User(2147483647, 2147483647)),
        ("+33:007", User(33, 7, (10, 44))),
        ("-0", User(0, 0, (10,))),
        (f"{'0' * 5000}33", User(33, 34, (10, 44))),
        ("7zip", User(5, 6)),
    ],
)
def test_users(text: str, user: User) -> None:
    """By name or number, which containerd reads with sign and zeros, too; a number that nobody has is in group 0."""
    assert find_user(text, ACCOUNTS) == user


@pytest.mark.parametrize("number", ["2147483648", "4294967296", "9" * 20, "9" * 21, "9" * 5000, "-1", f"-{'9' * 30}"])
@pytest.mark.parametrize("form", ["{}", "{}:0", "0:{}", "{0}:{0}"])
def test_a_number_out_of_range_is_refused(number: str, form: str) -> None:
    """4294967296 is not root (CVE-2024-40635), and 21 digits are a number even if an account has that name."""
    named = Accounts(f"{number}:x:0:0:::\n", f"{number}:x:0:\n")
    with pytest.raises(OutOfRange, match="out of range"):
        find_user(form.format(number), named)


@pytest.mark.parametrize("text", ["0x0", "0X1f", "0x", "-0x1", "0o17", "0b0", "1_000"])
@pytest.mark.parametrize("form", ["{}", "{}:0", "0:{}"])
def test_what_looks_like_a_number_is_no_name(text: str, form: str) -> None:
    """An image has no account 0x0 that a reader of its configuration could take for another number, or for root."""
    named = Accounts(f"{text}:x:0:0:::\n", f"{text}:x:0:\n")
    with pytest.raises(InvalidArgument, match="neither a name nor a decimal number"):
        find_user(form.format(text), named)


@pytest.mark.parametrize("text", ["huge", "long", "0:hugegroup", "below"])
def test_a_file_with_a_number_that_wraps_around_is_refused(text: str) -> None:
    """Not even when the image's own file says so; the other accounts of that file can be used."""
    with pytest.raises(OutOfRange):
        find_user(text, ACCOUNTS)


@pytest.mark.parametrize("text", [":", "web:", ":logs", "a:b:c"])
def test_what_is_no_user(text: str) -> None:
    """Half a user is none."""
    with pytest.raises(InvalidArgument, match="not of the form"):
        find_user(text, ACCOUNTS)


@pytest.mark.parametrize("text", ["nobody", "web:none", "-", "-web", "0xyz"])
def test_unknown_names(text: str) -> None:
    """The error says in which file the name is missing."""
    with pytest.raises(NotFound, match=r"/etc/(passwd|group)"):
        find_user(text, Accounts("web:x:1:1:::\n", ""))


def test_numbers_need_no_files() -> None:
    """Only with both numbers is there nothing to look up."""
    assert is_numeric("0:0")
    assert not any(map(is_numeric, ["0", "", "root:0", "0:", "1:1:1"]))


def test_links_in_the_image_stay_in_it(tmp_path: Path) -> None:
    """An absolute link is read below the root, never on the host."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "real").write_text("web:x:5:6:::\n")
    (tmp_path / "etc/passwd").symlink_to("/real")
    (tmp_path / "etc/group").symlink_to("../../../../../../etc/group")

    assert read_files(str(tmp_path)) == Accounts("web:x:5:6:::\n", "")


def test_missing_files_are_empty(tmp_path: Path) -> None:
    """An image need not have any."""
    assert read_files(str(tmp_path)) == Accounts()


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    """A FIFO would block for ever, a device would do worse (GHSA-jpcc-p29g-p8mq)."""
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")

    with pytest.raises(InvalidArgument, match="not a regular file"):
        read_files(str(tmp_path))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A sparse gigabyte costs the image nothing, and us neither."""
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/group").open("wb") as file:
        file.truncate(1 << 30)

    with pytest.raises(OutOfRange, match="limit is"):
        read_files(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_snapshot_is_mounted_where_nobody_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts are read through the mounts, the table of mounts has none of them, and no directory stays behind."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("web:x:5:6:::\n")
    found = read_accounts([Mount("bind", str(tmp_path), ("rbind", "rw"))])

    assert found.passwd == "web:x:5:6:::\n"
    with open("/proc/self/mountinfo") as table:
        assert str(tmp_path) not in table.read()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_snapshot_that_is_gone_is_an_error() -> None:
    """One line, no traceback of a thread."""
    with pytest.raises(Error, match="cannot be read"):
        read_accounts([Mount("bind", "/nonexistent", ("rbind",))])
