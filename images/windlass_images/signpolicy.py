"""Which images may be used, by name: a file of rules that an operator writes and the daemon reads at every pull.

The rule with the longest matching prefix decides, and the default decides where none
matches. A file that is missing allows everything; one with an error in it allows nothing.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windlass.config.toml import LIMIT, SyntaxProblem, Table, literal, parse
from windlass.config.validate import ERROR, Problem, Reader
from windlass.errors import FailedPrecondition

DEFAULT_FILE = Path("/etc/windlass/sign-policy.toml")

Requirement = Literal["allow", "deny", "digest", "signature"]


@dataclass(frozen=True)
class Rule:
    """One ``[[rules]]``: the requirement for images whose names start with ``prefix``."""

    #: Whole components of a name: `registry.example.org/team` covers `registry.example.org/team/app:1`.
    prefix: str
    #: `allow`; `deny`; `digest`: the name has to end in a digest; `signature`: one of `keys` has signed it.
    require: Requirement
    #: PEM files with public keys, relative to the policy's directory.
    keys: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictory keys."""
        if not self.prefix.strip("/"):
            raise ValueError("prefix is empty; `default` says what holds for every other image")
        if self.require == "signature" and not self.keys:
            raise ValueError('require = "signature" needs `keys`, the files with public keys')
        if self.keys and self.require != "signature":
            raise ValueError(f'`keys` are used with require = "signature" only, not with "{self.require}"')

    def covers(self, name: str) -> bool:
        """Say whether the prefix ends where a component of ``name`` does."""
        prefix = self.prefix.rstrip("/")
        return name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@")


@dataclass(frozen=True)
class _File:
    """The file's keys."""

    #: What holds where no rule matches.
    default: Literal["allow", "deny"] = "allow"
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The requirement for an image, its rule, and the rule's place."""

    require: Requirement
    place: str
    keys: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Policy:
    """A policy, each of its rules with the place where it is written."""

    path: Path
    default: Requirement = "allow"
    rules: tuple[tuple[Rule, str], ...] = ()

    def decide(self, name: str) -> Decision:
        """Return the requirement for the image ``name``."""
        matching = [(rule, place) for rule, place in self.rules if rule.covers(name)]
        if not matching:
            return Decision(self.default, f"{self.path}: default")
        rule, place = max(matching, key=lambda found: len(found[0].prefix.rstrip("/")))
        return Decision(rule.require, place, tuple(self.path.parent / key for key in rule.keys))


def load(path: Path = DEFAULT_FILE) -> Policy:
    """Read a policy. Raises FailedPrecondition with every error's file and line."""
    return _parse(_text(path), path)


def append(path: Path, prefix: str, require: str, keys: Sequence[str] = ()) -> Policy:
    """Add a rule at the end of a policy, whose comments stay. Raises FailedPrecondition, and then changes nothing."""
    lines = ["[[rules]]", f"prefix = {literal(prefix)}", f"require = {literal(require)}"]
    if keys:
        lines.append(f"keys = {literal(list(keys))}")
    before = _text(path).rstrip("\n")
    text = "\n".join([*([before, ""] if before else []), *lines, ""])
    policy = _parse(text, path)
    _replace(path, text)
    return policy


def _replace(path: Path, text: str) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise FailedPrecondition(f"sign policy {path} is longer than {LIMIT} bytes")
        return data.decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise FailedPrecondition(f"sign policy {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"sign policy {path} is not TOML: {error}") from None


def _parse(text: str, path: Path) -> Policy:
    try:
        return _read(parse(text, str(path)), path)
    except SyntaxProblem as problem:
        raise FailedPrecondition(f"{problem.mark}: {problem}") from None


def _read(table: Table, path: Path) -> Policy:
    reader = Reader()
    file = reader.read(_File, table)
    tables = table.get("rules") or []
    if file is not None:
        reader.problems += _repeated(file.rules, tables)
    if file is None or reader.problems:
        raise FailedPrecondition("; ".join(str(problem) for problem in reader.problems))
    places = [str(rule.mark) for rule in tables]
    return Policy(path, file.default, tuple(zip(file.rules, places, strict=True)))


def _repeated(rules: Sequence[Rule], tables: Sequence[Table]) -> Iterator[Problem]:
    seen: dict[str, Table] = {}
    for rule, table in zip(rules, tables, strict=True):
        first = seen.setdefault(rule.prefix.rstrip("/"), table)
        if first is not table:
            yield Problem(ERROR, table.mark, f'"{rule.prefix}" has a rule already, at {first.mark}')
