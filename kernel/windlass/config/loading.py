"""The daemon's configuration: containerd's config.toml, versions 0 to 4.

Two steps, because migrating and validating needs the plugins, and which are
imported depends on ``disabled_plugins``: `read` the files, then `Draft.settle` with
what was found. Every value keeps the file and line it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from windlass.config import durations, required
from windlass.config import files as configfiles
from windlass.config.blocks import check_blocks, check_names
from windlass.config.known import GRPC_SERVER, TIMEOUTS, TTRPC_SERVER, uri_of
from windlass.config.migrate import VERSION, blocks, migrate
from windlass.config.settings import LEGACY, TopLevel
from windlass.config.toml import Mark, Table
from windlass.config.validate import ERROR, WARNING, Problem, Reader, raise_errors
from windlass.contracts import properties
from windlass.discovery import Found
from windlass.graph import start_order
from windlass.plugin import Record
from windlass.records import dataclass

C = TypeVar("C")
SOCKET_PATH_LIMIT = 104
"""Longest path of a socket in bytes: what containerd allows; Linux itself takes 107 (unix(7))."""


@dataclass(frozen=True)
class Paths:
    """The paths that a daemon uses unless its configuration names others."""

    config: str
    root: str
    state: str
    address: str


WINDLASS = Paths("/etc/windlass/config.toml", "/var/lib/windlass", "/run/windlass", "/run/windlass/windlass.sock")
CONTAINERD = Paths(
    "/etc/containerd/config.toml", "/var/lib/containerd", "/run/containerd", "/run/containerd/containerd.sock"
)


@dataclass(frozen=True)
class Flags:
    """What the command line says; None is nothing. It wins over every file."""

    root: str | None = None
    state: str | None = None
    address: str | None = None
    level: str | None = None


NO_FLAGS = Flags()


@dataclass(frozen=True)
class Config:
    """The effective configuration; see `windlass.boot.Settings` for what boot needs of it."""

    top: TopLevel
    root: Path
    state: Path
    temp: Path | None
    timeouts: Mapping[str, float]
    plugins: Mapping[str, object]
    """URI to an instance of the plugin's configuration class, for every installed plugin that has one."""
    table: Table
    """Everything as merged, with marks, for `windlassd config dump`."""
    problems: Sequence[Problem]
    """Warnings and notes."""

    @property
    def required_plugins(self) -> Collection[str]:
        """URIs of plugins without which the daemon must not run."""
        return self.top.required_plugins

    @property
    def configured(self) -> Collection[str]:
        """URIs that a file has a block for: what the operator has set up must not be missing without a word.

        Such a plugin may be skipped, disabled, or not installed, as blocks of files are that are shared by
        several machines; it may not fail.
        """
        found = blocks(self.table).items()
        return [uri for uri, block in found if block.mark.line or any(mark.line for mark in block.marks.values())]

    @property
    def grpc_address(self) -> str:
        """Path of the grpc socket."""
        return str(self.table["plugins"][GRPC_SERVER]["address"])

    @property
    def ttrpc_address(self) -> str:
        """Path of the ttrpc socket."""
        return str(self.table["plugins"][TTRPC_SERVER]["address"])

    @property
    def properties(self) -> Mapping[str, str]:
        """Facts about the daemon by the names of `windlass.contracts.properties`."""
        return {
            properties.GRPC_ADDRESS: self.grpc_address,
            properties.TTRPC_ADDRESS: self.ttrpc_address,
            properties.ROOT: str(self.root),
            properties.STATE: str(self.state),
            properties.LOG_LEVEL: self.top.debug.level or "info",
        }

    def section(self, name: str, kind: type[C]) -> Mapping[str, C]:
        """Return the entries of a top-level section by ID, the files' after the defaults."""
        entries = getattr(self.top, name).items()
        return {id: entry for id, entry in entries if isinstance(entry, kind)}

    def check(self, records: Sequence[Record]) -> None:
        """Raise StartError when a plugin that this configuration counts on does not run."""
        required.check(records, self.required_plugins, self.configured, self.mark)

    def plugin_config(self, uri: str, kind: type[C]) -> C:
        """Return a plugin's validated configuration, its defaults when there is no block for it."""
        found = self.plugins.get(uri)
        return found if isinstance(found, kind) else kind()

    def mark(self, *path: str) -> Mark:
        """Return the file and line that a value came from, for messages about it."""
        table = self.table
        for key in path[:-1]:
            table = table[key]
        return table.place(path[-1])


class Draft:
    """The files as read and checked one by one, before plugins have had a say."""

    def __init__(self, paths: Paths, flags: Flags, files: configfiles.Files) -> None:
        """Check what the files say outside of plugins' blocks; `problems` holds what was found."""
        self._paths = paths
        self._flags = flags
        self.tables = files.tables
        self.problems = list(files.problems)
        for table in self.tables:
            self._check(table)

    @property
    def disabled(self) -> frozenset[str]:
        """URIs of plugins that need not be imported."""
        return frozenset(uri_of(name) for table in self.tables for name in table.get("disabled_plugins", []))

    def settle(self, found: Sequence[Found]) -> Config:
        """Migrate, merge and validate; raises ConfigError with every problem, or StartError for a loop of plugins."""
        plugins = start_order(entry.plugin for entry in found if entry.plugin)
        merged = defaults(self._paths)
        for table in self.tables:
            migrate(table, plugins)
            configfiles.merge(merged, table)
        self.problems += check_names(self.tables, found)
        self._apply_flags(merged)
        derive_ttrpc(merged)
        reader = Reader()
        top = reader.read(TopLevel, merged)
        self.problems += reader.problems + check_paths(merged)
        blocks_by_uri, problems = check_blocks(blocks(merged), found)
        self.problems += problems
        raise_errors(self.problems)
        assert top is not None  # there was no error
        return Config(
            top=top,
            root=Path(top.root).absolute(),
            state=Path(top.state).absolute(),
            temp=Path(top.temp).absolute() if top.temp else None,
            timeouts={key: durations.seconds(value) for key, value in top.timeouts.items()},
            plugins=blocks_by_uri,
            table=merged,
            problems=tuple(self.problems),
        )

    def _check(self, table: Table) -> None:
        """Report what is wrong with a file, and take it out, so that the rest can be checked as well."""
        version = table.get("version", 0)
        mark = table.place("version")
        if type(version) is int and not 0 <= version <= VERSION:
            remedy = f"Windlass knows versions up to {VERSION}"
            self.problems.append(Problem(ERROR, mark, f"version {version} is unknown; {remedy}"))
            table["version"] = VERSION
        self.problems += _take_out(table)
        self.problems += _check_values(table, table.get("version", VERSION if "version" in table.marks else 0))

    def _apply_flags(self, table: Table) -> None:
        for key in ("root", "state"):
            value = getattr(self._flags, key)
            if value is not None:
                table.put(key, value, Mark(f"--{key}"))
        if self._flags.address is not None:
            grpc, ttrpc = blocks(table)[GRPC_SERVER], blocks(table).get(TTRPC_SERVER, {})
            # before version 4 it follows from the line that the flag overrules, and follows the flag then
            if "address" in ttrpc and ttrpc.place("address") == grpc.place("address"):
                del ttrpc["address"]
            grpc.put("address", self._flags.address, Mark("--address"))
        if self._flags.level is not None:
            if "debug" not in table:
                table.put("debug", Table(Mark("--log-level")), Mark("--log-level"))
            table["debug"].put("level", self._flags.level, Mark("--log-level"))


NO_FLAGS = Flags()


def read(path: Path | None, paths: Paths = WINDLASS, flags: Flags = NO_FLAGS) -> Draft:
    """Read the configuration at ``path``, or at the default one if there is a file.

    Raises ConfigError with every problem of syntax, imports, types and keys outside of plugins' blocks.
    """
    files = configfiles.read(path or Path(paths.config), required=path is not None)
    draft = Draft(paths, flags, files)
    raise_errors(draft.problems)
    return draft


DEFAULT = Mark("default")
PROCESSOR_KEYS = {
    "accepts": "list the media types that it reads",
    "returns": "name the media type that it writes",
    "path": "name its program",
}


def defaults(paths: Paths) -> Table:
    """Return what holds where no file says otherwise; plugins have their own defaults in their classes."""
    table = Table(DEFAULT)
    table["version"] = VERSION
    table["root"] = paths.root
    table["state"] = paths.state
    table["timeouts"] = Table(DEFAULT)
    for key, seconds in TIMEOUTS.items():
        table["timeouts"][key] = durations.write(seconds)
    table["stream_processors"] = processors = Table(DEFAULT)
    for suffix in ("tar", "tar.gzip"):
        media = "application/vnd.oci.image.layer.v1." + suffix.replace(".", "+")
        processors[f"io.containerd.ocicrypt.decoder.v1.{suffix}"] = processor = Table(DEFAULT)
        processor.update(
            accepts=[f"{media}+encrypted"],
            returns=media,
            path="ctd-decoder",
            args=["--decryption-keys-path", "/etc/containerd/ocicrypt/keys"],
            env=["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf"],
        )
    blocks(table)[GRPC_SERVER] = Table(DEFAULT)
    blocks(table)[GRPC_SERVER]["address"] = paths.address
    return table


def derive_ttrpc(table: Table) -> None:
    """Put the ttrpc socket next to the grpc socket, with its owner, unless it is configured; make both absolute.

    containerd does so for versions before 4 and for ``--address`` only; without it
    a second daemon on other paths would take the first one's ttrpc socket.
    """
    grpc = blocks(table)[GRPC_SERVER]
    if TTRPC_SERVER not in blocks(table):
        blocks(table).put(TTRPC_SERVER, Table(grpc.place("address")), grpc.place("address"))
    ttrpc = blocks(table)[TTRPC_SERVER]
    if not isinstance(grpc["address"], str):
        return  # the check of the block says so
    if not ttrpc.get("address"):
        for key in ("uid", "gid", "address"):
            # what is of a wrong type is reported once, where it was written
            if grpc.get(key) and key not in ttrpc and (key == "address" or type(grpc[key]) is int):
                ttrpc.put(key, grpc[key], grpc.place(key))
        ttrpc.put("address", grpc["address"] and grpc["address"] + ".ttrpc", grpc.place("address"))
    for server in (grpc, ttrpc):
        if server["address"] and isinstance(server["address"], str):
            server["address"] = str(Path(server["address"]).absolute())


def check_paths(table: Table) -> list[Problem]:
    """Check the daemon's directories and sockets as far as that needs no look at them."""
    problems = [
        Problem(ERROR, table.place(key), f'"{key}" must not be empty; name a directory')
        for key in ("root", "state")
        if not table[key]
    ]
    if not problems and Path(table["root"]).absolute() == Path(table["state"]).absolute():
        reason = f"root and state are both {table['root']}; give each a directory of its own"
        problems.append(Problem(ERROR, table.place("state"), reason))
    for uri in (GRPC_SERVER, TTRPC_SERVER):
        server = blocks(table)[uri]
        length = len(str(server["address"]).encode())
        if not server["address"]:
            problems.append(Problem(ERROR, server.place("address"), f'"address" of {uri} is empty; name a socket'))
        elif length > SOCKET_PATH_LIMIT:
            reason = f"socket path {server['address']} has {length} bytes and {SOCKET_PATH_LIMIT} is the most"
            problems.append(Problem(ERROR, server.place("address"), f"{reason}; choose a shorter address"))
            break  # the ttrpc socket's name mostly follows from the other
    return problems


def _take_out(table: Table) -> list[Problem]:
    """Remove what is of a wrong type or not known, each as small a part as can be; return the problems."""
    problems: list[Problem] = []
    for key in list(table):
        parts = list(table[key]) if isinstance(table[key], Table) else []
        for inner in parts:
            found = _problems_of(table, key, inner)
            if found:
                problems += found
                del table[key][inner]
        found = _problems_of(table, key)
        if found:
            problems += found
            del table[key]
    return problems


def _problems_of(table: Table, key: str, inner: str | None = None) -> list[Problem]:
    """Return the problems of one key of the top level, or of one key of a section, as if it were alone."""
    alone, value = Table(table.mark), table[key]
    if inner is not None:
        value = Table(value.mark)
        value.put(inner, table[key][inner], table[key].place(inner))
    alone.put(key, value, table.place(key))
    reader = Reader()
    reader.read(TopLevel, alone)
    return reader.problems


def _check_values(table: Table, version: int) -> list[Problem]:
    """Check what types cannot say about one file's top level."""
    problems = []
    for key in ("disabled_plugins", "required_plugins"):
        for name in table.get(key, []) if version >= 2 else ():
            if "." not in name:
                hint = f'"{name}" in {key} is not a URI; did you mean "{uri_of(name)}"?'
                problems.append(Problem(ERROR, table.place(key), hint))
    for key, value in table.get("timeouts", {}).items():
        try:
            durations.seconds(value)
        except ValueError as error:
            problems.append(Problem(ERROR, table["timeouts"].place(key), f'timeout "{key}": {error}'))
    for id, processor in table.get("stream_processors", {}).items():
        for key, remedy in PROCESSOR_KEYS.items():
            if not processor.get(key):
                reason = f'stream processor "{id}" has no "{key}"; {remedy}'
                problems.append(Problem(ERROR, table["stream_processors"].place(id), reason))
    if not -1000 <= table.get("oom_score", 0) <= 1000:
        problems.append(Problem(ERROR, table.place("oom_score"), '"oom_score" must be between -1000 and 1000'))
    if table.get("plugin_dir"):
        reason = '"plugin_dir" has no effect; plugins are Python packages, installed by pip'
        problems.append(Problem(WARNING, table.place("plugin_dir"), reason))
    for key in LEGACY[:3] if version == VERSION else ():
        if key in table:
            reason = f'[{key}] has no effect in version 4; run "windlassd config migrate", or say version = 3'
            problems.append(Problem(WARNING, table.place(key), reason))
    return problems
