"""Reads ``hosts.toml`` and docker's certificate directories; every error has its file and line.

Source: docs/containerd 6.4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from windlass.config import durations
from windlass.config.toml import LIMIT, Mark, SyntaxProblem, Table, parse
from windlass.config.validate import ERROR, WARNING, Problem, Reader, did_you_mean
from windlass.errors import FailedPrecondition
from windlass_registry.hosts import CAPABILITIES, DIAL_TIMEOUT, Host, Tls, directories, origin

FILE = "hosts.toml"
HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Capability = Literal["pull", "resolve", "push", "referrers"]


@dataclass(frozen=True)
class _Entry:
    """The keys that a host has, and that stand at the top for the server."""

    capabilities: list[Capability] | None = None
    ca: str | list[str] = field(default_factory=list)
    client: str | list[str | list[str]] = field(default_factory=list)
    skip_verify: bool | None = None
    header: dict[str, str | list[str]] = field(default_factory=dict)
    override_path: bool = False
    dial_timeout: str = ""

    def __post_init__(self) -> None:
        """Refuse values that the types allow and TLS or HTTP do not."""
        for name, value in self.header.items():
            lines = [value] if isinstance(value, str) else value
            if not HEADER.fullmatch(name) or any("\r" in line or "\n" in line for line in lines):
                raise ValueError(f'header "{name[:80]}" cannot be sent: names are tokens, and values are one line')
        for pair in self.client if isinstance(self.client, list) else []:
            if isinstance(pair, list) and len(pair) not in (1, 2):
                raise ValueError("client pairs are [certificate, key]")
        if self.dial_timeout:
            durations.seconds(self.dial_timeout)


@dataclass(frozen=True)
class _File(_Entry):
    """The keys of the whole file."""

    server: str = ""
    host: dict[str, _Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The hosts of a registry, the file that names them, and its errors."""

    hosts: tuple[Host, ...]
    place: str
    problems: tuple[Problem, ...] = ()

    def raise_errors(self) -> None:
        """Raise FailedPrecondition if the file has errors: a guess could ask unwanted hosts."""
        errors = [str(problem) for problem in self.problems if problem.severity == ERROR]
        if errors:
            raise FailedPrecondition("; ".join(errors))


def find(registry: str, roots: Sequence[Path], scheme: str = "") -> Found:
    """Return the hosts of ``registry``, from the first directory there is for it; else the registry is asked itself."""
    for directory in directories(registry, roots):
        if directory.is_dir():
            return _in_directory(directory, registry, scheme)
    return Found((origin(registry, scheme),), "default")


def _in_directory(directory: Path, registry: str, scheme: str) -> Found:
    path = directory / FILE
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            return _unreadable(path, f"longer than {LIMIT} bytes")
        text = data.decode()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        return _unreadable(path, error.strerror)
    except UnicodeDecodeError:
        return _unreadable(path, "not UTF-8")
    if not text.strip():
        tls = _docker_certificates(directory)
        return Found((origin(registry, scheme, tls, str(directory)),), str(directory))
    try:
        table = parse(text, str(path))
    except SyntaxProblem as problem:
        return Found((), str(path), (Problem(ERROR, problem.mark, str(problem)),))
    return _Hosts(table, directory, registry, scheme).found()


def _unreadable(path: Path, reason: str | None) -> Found:
    return Found((), str(path), (Problem(ERROR, Mark(str(path)), f"cannot be read: {reason}"),))


def _docker_certificates(directory: Path) -> Tls:
    cas = tuple(sorted(directory.glob("*.crt")))
    pairs = tuple((cert, cert.with_suffix(".key")) for cert in sorted(directory.glob("*.cert")))
    return Tls(cas, pairs, explicit=bool(cas or pairs))


class _Hosts:
    """One pass over a file."""

    def __init__(self, table: Table, directory: Path, registry: str, scheme: str) -> None:
        self._table = table
        self._directory = directory
        self._registry = registry
        self._scheme = scheme
        self._reader = Reader(_unknown)

    def found(self) -> Found:
        """Return the hosts in the file's order, last the server; that is the registry itself if none is named."""
        file = self._reader.read(_File, self._table)
        problems = self._reader.problems
        if file is None:
            return Found((), self._table.mark.file, tuple(problems))
        tables = self._table.get("host", {})
        hosts = [self._host(url, entry, tables.place(url)) for url, entry in file.host.items()]
        hosts.append(self._server(file))
        wanted = tuple(host for host in hosts if host is not None)
        return Found(wanted, self._table.mark.file, tuple(problems))

    def _server(self, file: _File) -> Host | None:
        if file.server:
            return self._host(file.server, file, self._table.place("server"))
        mark = self._table.mark
        own = origin(self._registry, self._scheme, self._tls(file, mark))
        return self._made(own.scheme, own.authority, own.path, file, mark, own.tls)

    def _host(self, url: str, entry: _Entry, mark: Mark) -> Host | None:
        parts = _split(url)
        if parts is None:
            self._wrong(mark, f'"{url[:200]}" is not the address of a host; write https://name[:port]')
            return None
        path = parts.path.rstrip("/")
        if not entry.override_path and not path.endswith("/v2") and "/v2/" not in path + "/":
            path += "/v2"
        return self._made(parts.scheme, parts.netloc, path, entry, mark, self._tls(entry, mark))

    def _made(self, scheme: str, authority: str, path: str, entry: _Entry, mark: Mark, tls: Tls) -> Host:
        # An empty list is all of them, as in containerd: core/remotes/docker/config/hosts.go
        capabilities = frozenset(entry.capabilities) if entry.capabilities else CAPABILITIES
        headers = [
            (name, line)
            for name, value in entry.header.items()
            for line in ([value] if isinstance(value, str) else value)
        ]
        dial = durations.seconds(entry.dial_timeout) if entry.dial_timeout else DIAL_TIMEOUT
        return Host(scheme, authority, path, capabilities, tls, tuple(headers), dial or DIAL_TIMEOUT, str(mark))

    def _tls(self, entry: _Entry, mark: Mark) -> Tls:
        cas = [entry.ca] if isinstance(entry.ca, str) else entry.ca
        clients = [entry.client] if isinstance(entry.client, str) else entry.client
        pairs = [[client] if isinstance(client, str) else client for client in clients]
        files = [self._file(name, mark) for name in (*cas, *(name for pair in pairs for name in pair))]
        by_name = dict(zip((*cas, *(name for pair in pairs for name in pair)), files, strict=True))
        return Tls(
            tuple(by_name[name] for name in cas),
            tuple((by_name[pair[0]], by_name[pair[1]] if len(pair) > 1 else None) for pair in pairs),
            bool(entry.skip_verify),
            bool(cas or pairs or entry.skip_verify is not None),
        )

    def _file(self, name: str, mark: Mark) -> Path:
        path = self._directory / name
        if not path.is_file():
            self._wrong(mark, f"{path} does not exist; relative paths begin at the directory of {FILE}")
        return path

    def _wrong(self, mark: Mark, message: str) -> None:
        self._reader.problems.append(Problem(ERROR, mark, message))


def _split(url: str) -> SplitResult | None:
    """Return the parts of a host's URL, None if it is unusable."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        return None
    fit = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    return parts if fit and "@" not in parts.netloc else None


def _unknown(path: tuple[str, ...], mark: Mark, choices: object) -> Problem:
    """Report an unknown key, which may be a later version's, and otherwise ignore it, as containerd does."""
    names = [str(name) for name in choices] if isinstance(choices, (dict, list, set, frozenset)) else []
    return Problem(WARNING, mark, f'unknown key "{path[-1]}" has no effect{did_you_mean(path[-1], names)}')
