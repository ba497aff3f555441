"""Data classes that cost little until they are used: a `dataclass` like the standard library's that does less at once.

A class of the standard library compiles six methods when its module is imported, which takes half a millisecond; a
daemon has two hundred such classes, and a start meets few of their methods. Here `__init__` is compiled when several
instances have been made, and the other methods are shared.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from dataclasses import dataclass

    from _typeshed import DataclassInstance

    Values = dict[str, object]
else:

    def dataclass(cls=None, /, **options):  # noqa: ANN001, ANN003, ANN201 -- checkers see the real one, above
        """Make a class a data class; the options are those of `dataclasses.dataclass`."""
        return (lambda cls: _made(cls, options)) if cls is None else _made(cls, options)


__all__ = ["dataclass"]

UNCOMPILED = 3
"""Instances of a class that are made without compiling: a class of settings has hardly more."""

OWN = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__getstate__", "__setstate__"}
"""What is made here, or by the standard library for a class that has some of it itself."""


def _made(cls: type, options: dict[str, bool]) -> type:
    if not _is_plain(cls, options):
        return dataclasses.dataclass(**options)(cls)
    if cls.__doc__ is None:
        # Or it would be made of the signature, by inspect.
        cls.__doc__ = cls.__name__
    slots = options.get("slots", False)
    made: type[DataclassInstance] = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    # As the standard library has it, for classes that inherit.
    setattr(getattr(made, "__dataclass_params__"), "frozen", True)  # noqa: B009, B010 -- typeshed does not know it
    for name, method in _methods(made, slots).items():
        setattr(made, name, method)
    return made


def _is_plain(cls: type, options: dict[str, bool]) -> bool:
    """Whether nothing about a class is special: frozen, of no other data class, and without methods of its own."""
    if not options.get("frozen") or set(options) - {"frozen", "slots"} or OWN & cls.__dict__.keys():
        return False
    if any(hasattr(base, "__dataclass_fields__") for base in cls.__mro__[1:]):
        return False
    annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 -- inspect is what this spares
    return not any("InitVar" in str(each) for each in annotations.values())


def _methods(made: type[DataclassInstance], slots: bool) -> dict[str, object]:
    fields = dataclasses.fields(made)
    names = {each.name for each in fields}
    shown = [each.name for each in fields if each.repr]
    compared = _values([each.name for each in fields if each.compare])
    hashed = _values([each.name for each in fields if (each.compare if each.hash is None else each.hash)])

    left = UNCOMPILED

    def init(self: DataclassInstance, *args: object, **kwargs: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0 and _fill(self, fields, args, kwargs):
            return
        compiled = _init_of(made)
        setattr(made, "__init__", compiled)  # noqa: B010 -- checkers forbid the assignment
        compiled(self, *args, **kwargs)

    def show(self: DataclassInstance) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def equal(self: DataclassInstance, other: object) -> object:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_of(self: DataclassInstance) -> int:
        return hash(hashed(self))

    def set_attribute(self: DataclassInstance, name: str, value: object) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    def delete_attribute(self: DataclassInstance, name: str) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    found: dict[str, object] = {"__init__": init, "__repr__": show, "__eq__": equal, "__hash__": hash_of}
    found |= {"__setattr__": set_attribute, "__delattr__": delete_attribute}
    return found | ({"__getstate__": _state, "__setstate__": _set_state} if slots else {})


def _values(names: list[str]) -> attrgetter[tuple[object, ...]]:
    # Two names at least, for a tuple.
    return attrgetter(*names, *["__class__"] * (2 - min(len(names), 2)))


def _fill(
    self: DataclassInstance, fields: tuple[dataclasses.Field[object], ...], args: Sequence[object], named: Values
) -> bool:
    """Do what `__init__` does; return False, with nothing done, for what only the compiled one can say well."""
    names = [each.name for each in fields if each.init]
    values = dict(zip(names, args, strict=False)) | named
    required = {each.name for each in fields if each.init and each.default is each.default_factory}  # both are missing
    right = len(values) == len(args) + len(named) and required <= values.keys() <= set(names)
    if not right or any(each.kw_only for each in fields):
        return False
    for each in fields:
        if each.name not in values and each.default_factory is not dataclasses.MISSING:
            values[each.name] = each.default_factory()
        elif each.default is not dataclasses.MISSING:
            values.setdefault(each.name, each.default)
    for name, value in values.items():
        object.__setattr__(self, name, value)
    finish = getattr(self, "__post_init__", None)
    if finish is not None:
        finish()
    return True


def _init_of(made: type[DataclassInstance]) -> Callable[..., None]:
    """Compile `__init__`: that of another data class with the same fields."""
    fields = [(each.name, each.type, each) for each in dataclasses.fields(made)]
    finish = getattr(made, "__post_init__", None)
    namespace: Values = {
        "__doc__": "So that none is made of the signature.",
        **({"__post_init__": finish} if finish else {}),
    }
    twin = dataclasses.make_dataclass(
        made.__name__, fields, namespace=namespace, frozen=True, repr=False, eq=False, match_args=False
    )
    compiled: Callable[..., None] = vars(twin)["__init__"]
    return compiled


def _state(self: DataclassInstance) -> list[object]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: DataclassInstance, state: list[object]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)
