"""Registers two greeters, and the lobby that shows what all greeters say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plugin_type.contract import GREETER, Greeter
from windlass.plugin import InitContext, Plugin, PluginType

RECEPTION: PluginType[Mapping[str, Greeter]] = PluginType("dev.example.reception.v1")


@dataclass(frozen=True)
class DanishConfig:
    polite: bool = True
    """Say "Goddag" rather than "Hej"."""


def init_english(_context: InitContext) -> Greeter:
    from plugin_type.greeters import EnglishGreeter

    return EnglishGreeter()


def init_danish(context: InitContext) -> Greeter:
    from plugin_type.greeters import DanishGreeter

    return DanishGreeter(polite=context.config(DanishConfig).polite)


def init_lobby(context: InitContext) -> Mapping[str, Greeter]:
    greeters = context.all(GREETER)
    for id, greeter in greeters.items():
        context.meta.exports[id] = greeter.greet("world")
    return greeters


ENGLISH = Plugin(GREETER, id="english", init=init_english)
DANISH = Plugin(GREETER, id="danish", init=init_danish, config=DanishConfig)
LOBBY = Plugin(RECEPTION, id="lobby", init=init_lobby, requires=(GREETER,))
