"""`commit --change`: instructions of a Dockerfile that change an image's config."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Callable, Mapping

from windlass.errors import InvalidArgument

Config = dict[str, object]
"""The part of an image's document that says how it is executed."""


def apply(config: Config, text: str) -> None:
    """Carry out one instruction, such as ``CMD ["sh"]``. Raises InvalidArgument."""
    word, _, rest = text.strip().partition(" ")
    action = ACTIONS.get(word.upper())
    if action is None:
        raise InvalidArgument(f"change {text[:100]!r} is not known; known are {', '.join(ACTIONS)}")
    if not rest.strip():
        raise InvalidArgument(f"change {text[:100]!r} has no argument")
    action(config, rest.strip())


def _command(key: str) -> Callable[[Config, str], None]:
    def change(config: Config, rest: str) -> None:
        config[key] = _listed(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]

    return change


def _listed(rest: str) -> list[str]:
    try:
        found = json.loads(rest)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidArgument(f"{rest[:100]!r} is not a JSON list of strings")
    return found


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise InvalidArgument(f"{rest[:100]!r} cannot be read: {error}") from None


def _pairs(rest: str) -> dict[str, str]:
    words = _words(rest)
    if "=" not in words[0]:
        return {words[0]: rest.partition(words[0])[2].strip()}
    if not all("=" in word for word in words):
        raise InvalidArgument(f"{rest[:100]!r} is not a list of KEY=VALUE")
    return dict(word.partition("=")[::2] for word in words)


def _env(config: Config, rest: str) -> None:
    old = config.get("Env")
    values = dict(entry.partition("=")[::2] for entry in old) if isinstance(old, list) else {}
    config["Env"] = [f"{key}={value}" for key, value in {**values, **_pairs(rest)}.items()]


def _label(config: Config, rest: str) -> None:
    config["Labels"] = {**_object(config, "Labels"), **_pairs(rest)}


def _expose(config: Config, rest: str) -> None:
    ports: dict[str, object] = {word if "/" in word else f"{word}/tcp": {} for word in _words(rest)}
    config["ExposedPorts"] = {**_object(config, "ExposedPorts"), **ports}


def _volume(config: Config, rest: str) -> None:
    places = _listed(rest) if rest.startswith("[") else _words(rest)
    config["Volumes"] = {**_object(config, "Volumes"), **{place: {} for place in places}}


def _workdir(config: Config, rest: str) -> None:
    config["WorkingDir"] = posixpath.normpath(posixpath.join(str(config.get("WorkingDir") or "/"), rest))


def _onbuild(config: Config, rest: str) -> None:
    old = config.get("OnBuild")
    config["OnBuild"] = [*(old if isinstance(old, list) else []), rest]


def _text(key: str) -> Callable[[Config, str], None]:
    def change(config: Config, rest: str) -> None:
        config[key] = rest

    return change


def _object(config: Config, key: str) -> dict[str, object]:
    found = config.get(key)
    return dict(found) if isinstance(found, dict) else {}


ACTIONS: Mapping[str, Callable[[Config, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
