"""Devices of the Container Device Interface: which a container gets, and what they change (docs/containerd 5.7)."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from windlass.errors import Unknown
from windlass_oci.cdidocuments import KIND, NAME, Document, Edits, Fields, read
from windlass_oci.devices import device
from windlass_oci.mounts import depth
from windlass_oci.runtime_spec import Device, DeviceRule, Hook, Hooks, IntelRdt, Mount, Spec

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
SUFFIXES = (".json", ".yaml")


def inject(spec: Spec, names: Sequence[str], directories: Iterable[str]) -> None:
    """Change a spec, which has its user already, as the devices of some names want it. Blocks; raises Unknown.

    Whoever writes to the directories of specs is root.
    """
    known, problems = registry(directories)
    if unknown := [name for name in names if name not in known]:
        reasons = f"; not read: {'; '.join(problems)}" if problems else ""
        raise Unknown(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)[:200]}{reasons[:1000]}"
        )
    try:
        for edits in in_order(names, known):
            apply(spec, edits)
    except (ValueError, OSError) as error:
        raise Unknown(f"CDI device injection failed: failed to inject devices: {error}") from error
    spec["mounts"].sort(key=lambda each: depth(each["destination"]))


def is_qualified(name: str) -> bool:
    """Tell whether a text is ``vendor/class=name``."""
    kind, equals, own = name.partition("=")
    return bool(equals and KIND.fullmatch(kind) and NAME.fullmatch(own))


def registry(directories: Iterable[str]) -> tuple[dict[str, Document], list[str]]:
    """Return the specs of devices by their names, and what is wrong with files that were left out.

    A later directory wins. Two specs of one directory with the same device make that device unknown.
    """
    known: dict[str, Document] = {}
    problems: list[str] = []
    for directory in map(Path, directories):
        here: dict[str, Document] = {}
        doubled: set[str] = set()
        for found in _documents(directory, problems):
            both = here.keys() & found.devices.keys()
            problems += [f'conflicting device "{name}" in {here[name].path} and {found.path}' for name in sorted(both)]
            doubled |= both
            here |= dict.fromkeys(found.devices, found)
        for name in doubled:
            here.pop(name), known.pop(name, None)
        known |= here
    return known, problems


def _documents(directory: Path, problems: list[str]) -> Iterator[Document]:
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES)
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{directory}: {error.strerror}")
        return
    for path in paths:
        try:
            yield read(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")


def in_order(names: Iterable[str], known: Mapping[str, Document]) -> Iterator[Edits]:
    """Yield what devices change: before the first of a spec, what that spec changes for all."""
    seen: set[Path] = set()
    for name in names:
        found = known[name]
        if found.path not in seen:
            seen.add(found.path)
            yield found.edits
        yield found.devices[name]


def apply(spec: Spec, edits: Edits) -> None:
    """Make the changes. Raises ValueError, OSError."""
    process, linux = spec["process"], spec["linux"]
    for entry in edits.env:
        _set_variable(process["env"], entry)
    for each in edits.nodes:
        _add_node(spec, each)
    for each in edits.interfaces:
        linux.setdefault("netDevices", {})[each.needed("hostInterfaceName")] = {"name": each.needed("name")}
    mapped = any(each["type"] == "user" for each in linux["namespaces"])
    for each in edits.mounts:
        place = each.needed("containerPath")
        spec["mounts"] = [other for other in spec["mounts"] if other["destination"] != place]
        spec["mounts"].append(_mount(each, mapped))
    for each in edits.hooks:
        hooks = cast("dict[str, list[Hook]]", spec.setdefault("hooks", Hooks()))
        hooks.setdefault(each.needed("hookName"), []).append(_hook(each))
    if edits.rdt is not None:
        linux["intelRdt"] = cast("IntelRdt", {key: value for key, value in edits.rdt.values.items() if value})
    groups = process["user"].setdefault("additionalGids", [])
    groups += [each for each in dict.fromkeys(edits.groups) if each and each not in groups]


def _set_variable(env: list[str], entry: str) -> None:
    key = entry.partition("=")[0]
    places = [place for place, each in enumerate(env) if each.partition("=")[0] == key]
    if places:
        env[places[-1]] = entry  # the last one counts
    else:
        env.append(entry)


def _add_node(spec: Spec, node: Fields) -> None:
    """Add a device node, described by its CDI spec or else by the host's. Raises ValueError."""
    linux, path = spec["linux"], node.needed("path")
    made: Device = {"path": path, "type": node.text("type")}
    for name in ("major", "minor", "fileMode", "uid", "gid"):
        if (value := node.number(name)) is not None:
            made[name] = value
    described = bool(made["type"] and (made.get("major") or made["type"] == "p"))
    _complete(made, Path(node.text("hostPath") or path), described)
    user = spec["process"]["user"]
    for key, owner in (("uid", user["uid"]), ("gid", user["gid"])):
        if owner and key not in made:
            made[key] = owner  # type: ignore[literal-required]
    linux["devices"] = [*(each for each in linux.get("devices") or [] if each["path"] != path), made]
    if made["type"] in ("b", "c"):
        access = node.text("permissions") or "rwm"
        rule: DeviceRule = {"allow": True, "type": made["type"], "access": "" if access == "none" else access}
        rule["major"], rule["minor"] = made.get("major", 0), made.get("minor", 0)
        linux["resources"]["devices"].append(rule)


def _complete(made: Device, host: Path, described: bool) -> None:
    try:
        found = device(host, made["path"])
        mode = stat.S_IMODE(host.lstat().st_mode)
    except (Unknown, OSError) as error:
        if not described:
            raise ValueError(f'failed to stat CDI host device "{host}": {error}') from None
        return
    made.setdefault("fileMode", mode)
    if described:
        return
    if made["type"] not in ("", found["type"]):
        raise ValueError(f'CDI device "{host}" is of type {found["type"]}, not {made["type"]}')
    made["type"] = found["type"]
    made["major"], made["minor"] = found["major"], found["minor"]


def _mount(wanted: Fields, mapped: bool) -> Mount:
    options, kind = wanted.texts("options"), wanted.text("type")
    made: Mount = {"destination": wanted.needed("containerPath"), "source": wanted.needed("hostPath")}
    if mapped and not {"idmap", "ridmap"} & set(options):
        if "rbind" in options:
            options.append("ridmap")
        elif "bind" in options or kind == "bind":
            options.append("idmap")
    if kind:
        made["type"] = kind
    if options:
        made["options"] = options
    return made


def _hook(wanted: Fields) -> Hook:
    made: Hook = {"path": wanted.needed("path")}
    if args := wanted.texts("args"):
        made["args"] = args
    if env := wanted.texts("env"):
        made["env"] = env
    if (timeout := wanted.number("timeout")) is not None:
        made["timeout"] = timeout
    return made
