"""Promises of sign policies: the nearest rule decides, and a file with an error in it allows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.errors import FailedPrecondition
from windlass_images import signpolicy

TEXT = """\
default = "deny"

[[rules]]
prefix = "registry.example.org"
require = "digest"

[[rules]]
prefix = "registry.example.org/team/"
require = "signature"
keys = ["team.pub", "/etc/keys/old.pub"]

[[rules]]
prefix = "docker.io/library/busybox:1.36"
require = "allow"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "require", "line"),
    [
        ("registry.example.org/team/app:1", "signature", ":7"),
        ("registry.example.org/team", "signature", ":7"),
        ("registry.example.org/teamwork/app:1", "digest", ":3"),
        ("registry.example.org/app@sha256:0", "digest", ":3"),
        ("registry.example.org:5000/app:1", "digest", ":3"),
        ("registry.example.org.evil.test/app:1", "deny", ": default"),
        ("docker.io/library/busybox:1.36", "allow", ":12"),
        ("docker.io/library/busybox:1.36.1", "deny", ": default"),
    ],
)
def test_the_longest_prefix_that_ends_with_a_component_decides(
    tmp_path: Path, name: str, require: str, line: str
) -> None:
    path = write(tmp_path, TEXT)

    decision = signpolicy.load(path).decide(name)

    assert decision.require == require
    assert decision.place == f"{path}{line}"


def test_keys_are_looked_for_beside_the_policy(tmp_path: Path) -> None:
    decision = signpolicy.load(write(tmp_path, TEXT)).decide("registry.example.org/team/app:1")

    assert decision.keys == (tmp_path / "team.pub", Path("/etc/keys/old.pub"))


def test_without_a_file_everything_is_allowed(tmp_path: Path) -> None:
    assert signpolicy.load(tmp_path / "none.toml").decide("example.org/app:1").require == "allow"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('default = "maybe"', 1, "default"),
        ('defualt = "deny"', 1, 'did you mean "default"'),
        ('[[rules]]\nprefix = "a.test"\nrequire = "signature"\n', 1, "needs `keys`"),
        ('[[rules]]\nprefix = ""\nrequire = "deny"\n', 1, "prefix is empty"),
        ('[[rules]]\nprefix = "a.test"\nrequire = "deny"\nkeys = ["k"]\n', 1, "`keys` are used"),
        ('[[rules]]\nprefix = "a.test"\n', 1, "require"),
        ('[[rules]]\nprefix = "a"\nrequire = "deny"\n[[rules]]\nprefix = "a/"\nrequire = "allow"\n', 4, "already"),
        ("rules = 3", 1, "rules"),
        ('x = "', 1, ""),
    ],
)
def test_an_error_names_file_and_line_and_allows_nothing(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(FailedPrecondition) as caught:
        signpolicy.load(path)

    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FailedPrecondition, match="not TOML"):
        signpolicy.load(path)
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        signpolicy.load(tmp_path)


def test_a_rule_is_added_beside_what_somebody_wrote(tmp_path: Path) -> None:
    path = write(tmp_path, 'default = "deny" # nobody else\n')
    path.chmod(0o640)

    signpolicy.append(path, "a.test/team", "signature", ["team.pub"])
    signpolicy.append(path, "b.test", "allow")

    assert path.read_text().startswith('default = "deny" # nobody else\n\n[[rules]]\n')
    assert path.stat().st_mode & 0o777 == 0o640
    assert signpolicy.load(path).decide("a.test/team/app:1").keys == (tmp_path / "team.pub",)
    assert signpolicy.load(path).decide("b.test/app:1").require == "allow"


def test_a_rule_that_makes_an_error_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    signpolicy.append(path, "a.test", "allow")
    before = path.read_text()

    for prefix, require in (("a.test/", "deny"), ("b.test", "signature"), ("c.test", "perhaps")):
        with pytest.raises(FailedPrecondition):
            signpolicy.append(path, prefix, require, [])

    assert path.read_text() == before
    assert [found.name for found in tmp_path.iterdir()] == ["policy.toml"]
