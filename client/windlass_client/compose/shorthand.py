"""The short forms of a service's keys as long ones, so that merging and reading know one form of each key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from windlass_client.compose.values import Items, Place, Scalar, Section, Value, kind, wrong

PORT = re.compile(
    r"(?:(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<ip>[0-9]+(?:\.[0-9]+){3})):)?"
    r"(?:(?P<published>[0-9]+(?:-[0-9]+)?)?:)?(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>[a-zA-Z]+))?"
)
MODES = {"rw", "ro", "z", "Z", "cached", "delegated", "consistent", "nocopy"}
PROPAGATIONS = {"shared", "rshared", "slave", "rslave", "private", "rprivate"}


def expand(service: Section, path: str) -> Section:
    """Return a service with each key in its long form. Raises InvalidArgument."""
    entries = {
        key: LONG[key](value, f"{path}.{key}") if key in LONG and not _empty(value) else value
        for key, value in service.entries.items()
    }
    return replace(service, entries=entries)


def pairs(value: Value, path: str) -> Value:
    """Return `KEY=value` lines as a mapping; a line without `=` is a key without a value."""
    if not isinstance(value, Items):
        return value
    entries: dict[str, Value] = {}
    for number, each in enumerate(value.items):
        key, equals, text = _text(each, f"{path}.{number}").partition("=")
        entries[key] = Scalar(text if equals else None, each.at)
    return Section(entries, value.at, value.tag)


def _empty(value: Value) -> bool:
    return isinstance(value, Scalar) and value.text is None


def _text(value: Value, path: str) -> str:
    if isinstance(value, Scalar) and value.text is not None:
        return value.text
    raise wrong(value, path, f"must be text, and is {kind(value)}")


def _names(leaf: Mapping[str, str]) -> Callable[[Value, str], Value]:
    """Return what makes a list of names a mapping whose values all are ``leaf``."""

    def convert(value: Value, path: str) -> Value:
        if not isinstance(value, Items):
            return value
        names = [(_text(each, f"{path}.{number}"), each.at) for number, each in enumerate(value.items)]
        return Section({name: _fields(leaf, at) for name, at in names}, value.at, value.tag)

    return convert


def _fields(texts: Mapping[str, str], at: Place) -> Section:
    return Section({key: Scalar(text, at) for key, text in texts.items()}, at)


def _listed(value: Value, path: str) -> Value:
    """Return a single text as a list of one."""
    return Items((value,), value.at, value.tag) if isinstance(value, Scalar) else value


def _hosts(value: Value, path: str) -> Value:
    if not isinstance(value, Section):
        return value
    lines = (
        Scalar(f"{host}={_text(each, f'{path}.{host}')}", at.at)
        for host, at in value.entries.items()
        for each in (at.items if isinstance(at, Items) else (at,))
    )
    return Items(tuple(lines), value.at, value.tag)


def _each(convert: Callable[[str, Place, str], Iterator[Section]]) -> Callable[[Value, str], Value]:
    """Return what converts the texts of a list."""

    def all_of(value: Value, path: str) -> Value:
        if not isinstance(value, Items):
            return value
        found: list[Value] = []
        for number, each in enumerate(value.items):
            if isinstance(each, Section):
                found.append(each)
            else:
                found += convert(_text(each, f"{path}.{number}"), each.at, f"{path}.{number}")
        return replace(value, items=tuple(found))

    return all_of


def _port(text: str, at: Place, path: str) -> Iterator[Section]:
    match = PORT.fullmatch(text)
    if not match:
        form = "[IP:][PUBLISHED:]TARGET[/PROTOCOL]"
        raise wrong(Scalar(text, at), path, f"port {text[:40]!r} is not of the form {form}")
    targets = _range(match["target"])
    published = match["published"] or ""
    single = _range(published) if published else []
    if len(targets) > 1 and single and len(single) != len(targets):
        raise wrong(Scalar(text, at), path, f"port {text[:40]!r} has two ranges of different lengths")
    common = {"host_ip": match["six"] or match["ip"] or "", "protocol": (match["protocol"] or "tcp").lower()}
    for number, target in enumerate(targets):
        out = published if len(targets) == 1 else str(single[number]) if single else ""
        yield _fields({"target": str(target), "published": out, **common}, at)


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    # more than there are ports is the reader's to refuse, which sees a number that is too large
    return list(range(int(first), min(int(last or first), int(first) + 65535) + 1))


def _volume(text: str, at: Place, path: str) -> Iterator[Section]:
    words = text.split(":")
    if len(words) > 3 or not words[-1] or (len(words) == 1 and not text.startswith("/")):
        raise wrong(Scalar(text, at), path, f"volume {text[:80]!r} is not of the form [SOURCE:]TARGET[:MODE]")
    if len(words) == 1:
        yield _fields({"type": "volume", "source": "", "target": text}, at)
        return
    source, target = words[:2]
    bind = source.startswith(("/", ".", "~"))
    entries: dict[str, Value] = dict(
        _fields({"type": "bind" if bind else "volume", "source": source, "target": target}, at).entries
    )
    for mode in words[2].split(",") if len(words) == 3 else ():
        if mode in PROPAGATIONS:
            entries["bind"] = _fields({"propagation": mode}, at)
        elif mode not in MODES:
            raise wrong(
                Scalar(text, at), path, f"volume {text[:80]!r} has an unknown mode {mode!r}; ro and rw are usual"
            )
        elif mode == "ro":
            entries["read_only"] = Scalar("true", at)
        elif mode == "nocopy":
            entries["volume"] = _fields({"nocopy": "true"}, at)
    yield Section(entries, at)


def _env_file(text: str, at: Place, path: str) -> Iterator[Section]:
    yield _fields({"path": text, "required": "true"}, at)


def _grant(text: str, at: Place, path: str) -> Iterator[Section]:
    yield _fields({"source": text}, at)


def _extends(value: Value, path: str) -> Value:
    return _fields({"service": _text(value, path)}, value.at) if isinstance(value, Scalar) else value


LONG: Mapping[str, Callable[[Value, str], Value]] = {
    "environment": pairs,
    "labels": pairs,
    "sysctls": pairs,
    "depends_on": _names({"condition": "service_started"}),
    "networks": _names({}),
    "dns": _listed,
    "dns_search": _listed,
    "dns_opt": _listed,
    "tmpfs": _listed,
    "extra_hosts": _hosts,
    "ports": _each(_port),
    "volumes": _each(_volume),
    "env_file": lambda value, path: _each(_env_file)(_listed(value, path), path),
    "secrets": _each(_grant),
    "configs": _each(_grant),
    "extends": _extends,
}
"""What makes the long form of a key's value of its short one."""
