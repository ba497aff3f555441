"""The rules that keep the house: who may import whom, names that agree, and documents that say what the code does."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
from house import (
    TREE,
    Distribution,
    circles,
    code_lines,
    distributions,
    identifiers,
    imported_modules,
    imports,
    modules,
    own_sources,
    parsed,
    where,
)

from windlass.contracts.rpc import is_implemented
from windlass.contracts.services import GRPC, TTRPC
from windlass.errors import Error, Unimplemented
from windlass.plugin import Meta, Plugin, PluginType
from windlass_api.services import FAMILIES, services
from windlass_cri.services.images import ImageService
from windlass_cri.services.runtime import RuntimeService

T = TypeVar("T")

PLUGINS = distributions("plugins/*")
PACKAGES = {each.module for each in PLUGINS}
WITH_PLUGINS = distributions("plugins/*", "examples/*")

COMPATIBILITY = TREE / "docs" / "compatibility.md"
FULL, PART, NONE = "✓", "◐", "✗"

BROAD = {
    "kernel/windlass/process/later.py": "imports of plugins' modules, where no call is there to fail",
    "kernel/windlass/boot.py": "a plugin's start and stop",
    "kernel/windlass/initialise.py": "raised again as what boot can record",
    "kernel/windlass/config/blocks.py": "a defect of a plugin's configuration class is a problem that names the plugin",
    "kernel/windlass/discovery.py": "an import may raise anything, which becomes its plugin's record",
    "kernel/windlass/config/factories.py": "a factory's defect ends the daemon with its distribution's name",
    "kernel/windlass/config/migrate.py": "a migration's defect ends the daemon with the plugin's name",
    "kernel/windlass/process/reload.py": "one plugin that cannot take over new values must not keep the others from it",
    "kernel/windlass/hooks.py": "what a participant raises is what its step's policy decides about",
    "client/windlass_client/plugincheck/nonsense.py": "what a plugin raises when it is asked nonsense is the finding",
    "plugins/transfer/windlass_transfer/admission.py": "a verifier's defect refuses the image and names the verifier",
    "plugins/metadata/windlass_metadata/threads.py": "raised again in the thread that asked for the call",
    "kernel/windlass/pool.py": "raised again on the loop that asked for the call",
    "kernel/windlass/ownloop.py": "raised again as what the callers of a plugin can handle",
    "plugins/server/windlass_server/grpc/calls.py": "a defect of a handler is told to its caller and to the log",
    "plugins/shim_runc/windlass_shim_runc/server.py": "a defect of a method is told to its caller and to the log",
    "plugins/shim_runc/windlass_shim_runc/loop.py": "a defect in one task must not end the containers' keeper",
    "plugins/shim_runc/windlass_shim_runc/entry.py": "a worker that cannot leave goes on serving",
    "oci_runtime/windlass_oci_runtime/hooks.py": "the process that runs hooks is a copy of the runtime",
    "oci_runtime/windlass_oci_runtime/listener.py": "the process that hands a listener over is a copy of the runtime",
    "oci_runtime/windlass_oci_runtime/steps.py": "a container's process is a copy of the runtime until it executes",
}
"""Files that may catch everything, and why."""


def ids(each: Distribution) -> str:
    return each.folder.name


def module(each: Distribution, name: str = "plugin") -> ModuleType:
    return import_module(f"{each.module}.{name}")


def declared(each: Distribution) -> list[Plugin[object]]:
    """Return the plugins that a distribution's plugin.py declares."""
    return [value for value in vars(module(each)).values() if isinstance(value, Plugin)]


# Who imports whom


def test_the_kernel_imports_no_plugin() -> None:
    """Mechanism and contracts know nothing of who uses them."""
    kernel = Distribution(TREE / "kernel")
    bad = [
        f"{where(path, each.line)} imports {each.module}"
        for path in kernel.sources()
        for each in imports(path)
        if each.root.startswith("windlass_")
    ]
    assert not bad


KERNEL = TREE / "kernel" / "windlass"
LAYERS = {"contracts": 1, "filters": 2, "config": 2, "process": 3}
"""The kernel's packages, and on which floor each is; what is in none of them is mechanism, the lowest."""


def layer(name: str) -> tuple[int, str]:
    part = name.removeprefix("windlass.").partition(".")[0]
    return (LAYERS[part], part) if part in LAYERS else (0, "mechanism")


def test_the_kernel_imports_downwards() -> None:
    """Mechanism, then contracts, then filters and config, then the process: docs/architecture.md."""
    known = {name: path for name, path in modules().items() if name.partition(".")[0] == "windlass"}
    bad = [
        f"{where(path)}: {layer(name)[1]} imports {target}"
        for name, path in known.items()
        for target in imported_modules(name, known)
        if layer(target)[0] > layer(name)[0] or (layer(target)[0] == layer(name)[0] and layer(target) != layer(name))
    ]
    assert len(known) > 60
    assert {path.parent.name for path in KERNEL.glob("*/__init__.py")} == set(LAYERS)
    assert not bad


def test_no_modules_import_each_other() -> None:
    """Not in functions, and not for type checkers either: each module can be read after those that it imports."""
    known = modules()
    found = circles({name: imported_modules(name, known) for name in known})
    assert not [" -> ".join([*circle, circle[0]]) for circle in found]


MECHANISM = sorted(set(KERNEL.glob("*.py")) - {KERNEL / "records.py"})
"""Without the data classes, which are a faster form of the standard library's."""
LIMIT = 1290


def test_the_mechanism_can_be_read_in_one_sitting() -> None:
    """Lines of code, without blank lines, comments and docstrings."""
    lines = {path.name: code_lines(path) for path in MECHANISM}
    assert sum(lines.values()) <= LIMIT, lines


CONTAINERS = {
    *("blob", "bundle", "container", "containers", "digest", "image", "images", "layer", "layers", "manifest", "mount"),
    *("mounts", "oci", "registry", "rootfs", "runc", "sandbox", "sandboxes", "shim", "shims", "snapshot", "snapshots"),
    *("snapshotter", "containerd"),
}


def test_the_mechanism_names_nothing_of_containers() -> None:
    """What is plugged together is a matter of contracts; texts may give examples."""
    assert not {where(path): found for path in MECHANISM if (found := identifiers(path) & CONTAINERS)}


def test_no_plugin_imports_another_plugin() -> None:
    """Plugins meet through contracts; each can be replaced without the others noticing."""
    bad = [
        f"{where(path, each.line)} imports {each.module}"
        for plugin in PLUGINS
        for path in plugin.sources()
        for each in imports(path)
        if each.root in PACKAGES - {plugin.module} or each.root == "windlass_client"
    ]
    assert not bad


ABOVE = ("windlass_adopt", "windlass_client", "windlass_conformance", "windlass_install")
"""What stands on everything else, and is not a library for plugins."""


def test_no_library_imports_a_plugin_or_the_client() -> None:
    """A plugin can stand on every library, and brings no other plugin with it."""
    libraries = [each for each in distributions("*") if each.module not in ABOVE]
    bad = [
        f"{where(path, each.line)} imports {each.module}"
        for library in libraries
        for path in library.sources()
        for each in imports(path)
        if each.root in PACKAGES | {"windlass_client"}
    ]
    assert not bad


@pytest.mark.parametrize("plugin", WITH_PLUGINS, ids=ids)
def test_a_registration_imports_only_the_kernel(plugin: Distribution) -> None:
    """Listing, disabling and --help load no implementation; a large configuration has a module of its own."""
    folder = plugin.folder / plugin.module
    allowed = {"windlass", f"{plugin.module}.{'config' if plugin in PLUGINS else 'contract'}"}
    bad = [
        f"{where(path, each.line)} imports {each.module}"
        for path in (folder / "plugin.py", folder / "config.py")
        if path.exists()
        for each in imports(path)
        if each.foreign and not each.late and not each.typing and not {each.root, each.module} & allowed
    ]
    assert not bad


SELECT = re.compile(
    r"\bselect\.select\(|from select import .*\bselect\b|\bSelectSelector\b|[( ]lib.?c?\(?\)?\.select\("
)


def test_nothing_uses_select() -> None:
    """select(2) fails for a descriptor whose number is 1,024 or more; poll and epoll take any."""
    bad = [
        where(path, line)
        for path in own_sources()
        if path != Path(__file__)
        for line, text in enumerate(path.read_text().splitlines(), 1)
        if SELECT.search(text)
    ]
    assert not bad


# Names


@pytest.mark.parametrize("plugin", PLUGINS, ids=ids)
def test_folder_distribution_and_package_have_one_name(plugin: Distribution) -> None:
    """Whoever knows one of the three names knows the others."""
    name = plugin.folder.name
    assert (plugin.name, plugin.module) == (f"windlass-{name.replace('_', '-')}", f"windlass_{name}")
    assert (plugin.folder / plugin.module / "py.typed").exists()
    init = ast.parse((plugin.folder / plugin.module / "__init__.py").read_text())
    assert ast.get_docstring(init) and len(init.body) == 1, "__init__.py of a plugin is its docstring"


@pytest.mark.parametrize("plugin", WITH_PLUGINS, ids=ids)
def test_every_declared_plugin_has_an_entry_point_under_its_uri(plugin: Distribution) -> None:
    """An entry point is found by its name alone, so the name has to be right."""
    named = {uri: getattr(module(plugin), target.partition(":")[2]) for uri, target in plugin.entry_points.items()}
    assert {uri: value.uri for uri, value in named.items()} == {uri: uri for uri in named}
    assert {each.uri for each in declared(plugin)} == set(named)


def test_everything_is_installed_for_development_and_by_standard() -> None:
    """A distribution that is not listed is not tested, and a plugin that is not in `standard` is not shipped."""
    requirements = (TREE / "requirements-dev.txt").read_text()
    listed = set(re.findall(r"^-e ([\w/]+)", requirements, re.MULTILINE))
    assert listed == {str(each) for each in distributions()}
    standard = Distribution(TREE / "kernel").project["optional-dependencies"]["standard"]
    assert {each.name for each in PLUGINS} <= set(standard)


# Documents


@pytest.mark.parametrize("plugin", WITH_PLUGINS, ids=ids)
def test_every_config_field_is_in_the_readme(plugin: Distribution) -> None:
    """An operator finds every key that a plugin has."""
    readme = (plugin.folder / "README.md").read_text()
    missing = [
        f"{each.uri}: {key.name}"
        for each in declared(plugin)
        if each.config is not None and dataclasses.is_dataclass(each.config)
        for key in dataclasses.fields(each.config)
        if f"`{key.name}`" not in readme
    ]
    assert not missing


def _contracts() -> set[str]:
    return {f"windlass.contracts.{path.stem}" for path in (KERNEL / "contracts").glob("[!_]*.py")}


def test_every_plugin_type_is_described() -> None:
    """What can be replaced is listed in docs/architecture.md."""
    text = (TREE / "docs" / "architecture.md").read_text()
    modules = [import_module(each) for each in ("windlass.plugin", *sorted(_contracts()))]
    types = {
        value.uri
        for each in [*modules, *(module(plugin) for plugin in PLUGINS)]
        for value in vars(each).values()
        if isinstance(value, PluginType)
    }
    assert len(types) > 10
    assert not [uri for uri in sorted(types - {"*"}) if f"`{uri}`" not in text]


def test_every_plugin_and_every_part_of_the_kernel_has_a_line_in_the_architecture() -> None:
    """The parts are modules of mechanism, whole packages, and contracts, which are next to their plugin types."""
    text = (TREE / "docs" / "architecture.md").read_text()
    assert not [str(each) for each in PLUGINS if f"`{each.folder.name}`" not in text]
    mechanism = {path.name for path in MECHANISM} - {"__init__.py"}
    assert not [name for name in sorted(mechanism) if f"`{name}`" not in text]
    assert not [name for name in LAYERS if f"`kernel/windlass/{name}/`" not in text]
    types = text.partition("\n## Plugin types\n")[2].partition("\n## ")[0]
    contracts = {name.rpartition(".")[2] for name in _contracts()}
    assert contracts == set(re.findall(r"`(\w+)\.py`", types))


def test_the_readme_commands_exist_and_ci_runs_them() -> None:
    """What a newcomer is told to type is there, and is what has to pass."""
    readme = (TREE / "README.md").read_text()
    for command in ("scripts/demo", "scripts/test"):
        assert f"./{command}" in readme
        assert os.access(TREE / command, os.X_OK)
    assert "scripts/test" in (TREE / ".ci" / "run").read_text()


SECURITY = TREE / "docs" / "security.md"
OCI_SECURITY = TREE / "docs" / "oci-security.md"


def test_every_test_that_guards_against_an_advisory_exists() -> None:
    """A test that was renamed or removed leaves no row of the two pages without its guard."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", SECURITY.read_text() + OCI_SECURITY.read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^\s*(?:async )?def {name}\(", _text(TREE / path), re.MULTILINE)
    ]
    assert len(named) > 50
    assert not missing


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_every_advisory_is_listed_once_and_has_an_answer() -> None:
    """Whoever reads of a weakness finds its number, whether it is ours, and what says so."""
    rows = [line.strip("|").split(" | ") for line in SECURITY.read_text().splitlines() if re.match(r"\| 20\d\d", line)]
    identifiers = [each for row in rows for each in row[1].split() if each.startswith(("CVE-", "GHSA-"))]
    shape = r"CVE-20\d\d-\d{4,5}|GHSA(-[2-9cfghjmpqrvwx]{4}){3}"

    assert len(rows) > 60
    assert not [each for each in identifiers if not re.fullmatch(shape, each)]
    assert len(identifiers) == len(set(identifiers))
    assert not [
        row for row in rows if not row[3].strip() or (row[3].startswith(("yes", "runc")) and not row[4].strip())
    ]


def links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            yield target


def test_links_between_documents_lead_somewhere() -> None:
    """A moved file is noticed where it is linked from."""
    pages = [*TREE.glob("*.md"), *TREE.glob("docs/**/*.md"), *(each.folder / "README.md" for each in distributions())]
    bad = [
        f"{where(page)}: {target}" for page in pages for target in links(page) if not (page.parent / target).exists()
    ]
    assert not bad


def test_what_is_cited_of_containerd_is_there() -> None:
    """A newcomer can follow every citation: ``docs/containerd 3.7`` is a heading of a page there."""
    headings = {
        number
        for page in (TREE / "docs" / "containerd").glob("*.md")
        for number in re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", page.read_text(), re.MULTILINE)
    }
    cited = {
        (section, where(path))
        for path in [*own_sources(), *TREE.glob("docs/*.md"), *TREE.glob("docs/decisions/*.md")]
        for section in re.findall(r"docs/containerd (\d+(?:\.\d+)*)", path.read_text())
    }
    assert len(cited) > 100
    # 6.5.3 is a step of the list in 6.5
    assert not [place for section, place in cited if ".".join(section.split(".")[:2]) not in headings]


def test_the_tutorial_quotes_the_examples() -> None:
    """Every Python or TOML block of the tutorial that names a file is in that file, word for word."""
    text = (TREE / "docs" / "writing-a-plugin.md").read_text()
    quotes = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(quotes) >= 5
    for name, quote in quotes:
        have = (TREE / name).read_text()
        for part in quote.split("...\n"):
            assert part.strip("\n") in have, f"{name} has changed: the tutorial quotes\n{part}"


# The compatibility page


def rows() -> dict[str, dict[str, str]]:
    """Return the mark of every method by service, as docs/compatibility.md has them."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in COMPATIBILITY.read_text().splitlines():
        if line.startswith("#"):
            heading = re.search(r"`([\w.]+)`", line)
            section = found.setdefault(heading[1], {}) if heading else {}
        elif row := re.match(rf"\| (\w+) \| ([{FULL}{PART}{NONE}]) \|", line):
            assert row[1] not in section, f"{line}: second row"
            section[row[1]] = row[2]
    return {name: section for name, section in found.items() if section}


def test_every_rpc_has_a_row() -> None:
    """No RPC is passed over in silence, and none is made up."""
    wire = {each.name: {method.name for method in each.methods} for family in FAMILIES for each in services(family)}
    assert {name: set(methods) for name, methods in rows().items()} == wire


class Nothing:
    """A plugin of any type that does nothing: every method returns such a thing again."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *arguments: object) -> Nothing:
        return self


@dataclass
class Anything:
    """An `InitContext` in which every plugin and every setting is there, and does nothing."""

    root: Path
    meta: Meta = field(default_factory=Meta)

    def single(self, kind: PluginType[T]) -> object:
        return Nothing()

    def by_id(self, kind: PluginType[T], id: str) -> object:
        return Nothing()

    def all(self, kind: PluginType[T]) -> dict[str, object]:
        return {}

    def config(self, kind: type[T]) -> T:
        return kind()

    def records(self) -> tuple[()]:
        return ()

    def gates(self) -> dict[str, object]:
        return {}


CRI = {"runtime.v1.RuntimeService": RuntimeService, "runtime.v1.ImageService": ImageService}


# Any: a service is of one class or of the other, by its kind.
def served(kind: PluginType[Any], tmp_path: Path) -> dict[str, Any]:
    """Return the services of a type, by the names that the wire has for them."""
    plugins = [
        each for plugin in PLUGINS for each in declared(plugin) if each.type.uri == kind.uri and each.id != "cri"
    ]
    instances: list[Any] = [each.init(Anything(tmp_path)) for each in plugins]  # type: ignore[arg-type] # as much of one as they use
    return {instance.name: instance for instance in instances}


def test_marks_of_grpc_services_are_true(tmp_path: Path) -> None:
    """A ✓ or ◐ is served; a ✗ answers UNIMPLEMENTED."""
    found = served(GRPC, tmp_path)
    for service in services("cri"):
        missing = [name for name in rows()[service.name] if not is_implemented(CRI[service.name], name)]
        assert not [name for name in missing if rows()[service.name][name] != NONE], "of CRI what is marked is served"
    wire = [each for family in ("containerd", "health") for each in services(family)]
    for service in wire:
        marks = rows()[service.name]
        methods = found[service.name].methods if service.name in found else dict.fromkeys(marks, False)
        assert {name: mark != NONE for name, mark in marks.items()} == methods, service.name
    registered = {each.name for family in ("containerd", "health") for each in services(family)}
    assert registered <= set(found), "all sixteen services and health are registered, built or not"


async def test_marks_of_ttrpc_services_are_true(tmp_path: Path) -> None:
    """What shims report to answers as the page says."""
    found = served(TTRPC, tmp_path)
    for service in services("ttrpc"):
        for name, mark in rows()[service.name].items():
            assert await unimplemented(found[service.name].call(name, "default", b"\xff")) == (mark == NONE)


async def test_marks_of_our_shim_are_true() -> None:
    """The shim serves both versions of Task and the Sandbox API, and refuses what is marked ✗."""
    from windlass_shim_runc.inventory import Inventory
    from windlass_shim_runc.services import services as shim_services

    found = shim_services(Inventory(None, lambda: None), lambda: None)  # type: ignore[arg-type] # no container is made
    for service in services("shim"):
        marks = rows()[service.name]
        if service.name not in found:
            assert set(marks.values()) == {NONE}
            continue
        methods, serving = found[service.name]
        for name, mark in marks.items():
            if name not in methods:
                assert mark == NONE
                continue
            kind, function = methods[name]
            if mark == NONE:
                assert await unimplemented(getattr(serving, function)(kind()))


async def unimplemented(call: object) -> bool:
    """Tell whether a call is refused as not built; other refusals mean that it is."""
    assert asyncio.iscoroutine(call)
    try:
        await call
    except Unimplemented:
        return True
    except (Error, ValueError):
        return False
    return False


def test_proofs_on_the_compatibility_page_exist() -> None:
    """A test that the page names is in the tree."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", COMPATIBILITY.read_text()))
    assert named
    assert not [name for name in named if not (TREE / name).exists()]


# Smells


def test_every_module_says_what_it_is_for() -> None:
    """One sentence that would do as the file's row in a table of contents."""
    assert not [where(path) for path in own_sources() if not ast.get_docstring(parsed(path))]


def test_nothing_is_mocked() -> None:
    """Fakes are small real implementations."""
    bad = [where(path) for path in own_sources() for each in imports(path) if each.module.startswith("unittest")]
    assert not bad


def catches_all(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler takes every error and does not pass it on."""
    kind = ast.unparse(handler.type) if handler.type else "BaseException"
    last = handler.body[-1]
    passed_on = isinstance(last, ast.Raise) and last.exc is None
    return bool(re.search(r"\b(Base)?Exception\b", kind)) and not passed_on


def test_everything_is_caught_only_at_the_edges() -> None:
    """A broad except hides defects; the few that are right are listed here with their reason."""
    found = {
        where(path)
        for each in distributions()
        for path in each.sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    }
    assert found == set(BROAD)


def test_no_left_overs() -> None:
    """Unfinished work is a ✗ on the page, not a note in the source."""
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    mine = Path(__file__)
    assert not [where(path) for path in own_sources() if path != mine and words.search(path.read_text())]
