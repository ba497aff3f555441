"""Declarations of plugins, the marks of their authors, and what operators read of one that did not start."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, Protocol

import pytest

from windlass.errors import InvalidArgument, NotFound
from windlass.initialise import check_instance, check_meta
from windlass.marks import CLOSED, OPEN, Step, is_quick, quick, step, step_of
from windlass.plugin import HOOK, SKIP, Meta, Plugin, PluginType, Record, SkipPlugin, State

A: PluginType[Any] = PluginType("type.a")


def raised(error: BaseException) -> BaseException:
    """Return an error with a traceback, as one that was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def message(error: BaseException | None) -> str:
    return Record("type.a.1", "type.a", "1", State.FAILED, error=error).message


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, ""),
        (NotFound("x does not exist"), "x does not exist"),
        (SkipPlugin("no btrfs here"), f"no btrfs here: {SKIP}"),
        (ImportError("no module named x"), "no module named x"),
        (OSError(2, "No such file or directory", "/x"), "[Errno 2] No such file or directory: '/x'"),
        (KeyError("key"), "KeyError: 'key'"),
        (RuntimeError(), "RuntimeError"),
        (SyntaxError("invalid syntax", ("/x.py", 7, 1, "?", 7, 2)), "SyntaxError: invalid syntax at /x.py:7"),
    ],
)
def test_a_sentence_is_shown_as_it_is_and_all_else_with_its_class(error: BaseException | None, text: str) -> None:
    """A key, or nothing at all, says nothing to an operator; a file that is no Python has its own place."""
    assert message(error) == text


def test_a_defect_is_shown_with_the_place_that_raised_it() -> None:
    """File, line and function: what its author asks for first."""
    found = message(raised(KeyError("key")))
    assert found.startswith(f"KeyError: 'key' at {__file__}:")
    assert found.endswith(" (raised)")


@pytest.mark.parametrize(
    ("have", "asked", "fits"),
    [
        ((1, 0), (1, 0), True),
        ((1, 5), (1, 2), True),
        ((1, 2), (1, 5), False),
        ((2, 9), (1, 0), False),
        ((1, 0), (2, 0), False),
    ],
)
def test_a_contract_may_have_grown_and_not_changed(have: tuple[int, int], asked: tuple[int, int], fits: bool) -> None:
    """More than was asked for is fine within one first number."""
    kind: PluginType[object] = PluginType("type.v", version=have)
    assert (not kind.at(*asked).misfit) is fits
    assert not kind.misfit


def test_a_type_is_the_same_whatever_version_was_asked_for() -> None:
    """Or plugins of it would not be found by those that require it."""
    assert A.at(1, 2) == A
    assert hash(A.at(1, 2)) == hash(A)
    assert A.at(1, 2).asked == (1, 2)
    assert A.asked is None


def test_a_plugin_misfits_by_the_first_of_its_types_that_does() -> None:
    """Its own comes first; the message has both numbers and the remedy."""
    other: PluginType[object] = PluginType("type.b", version=(1, 3))
    fitting = Plugin(A.at(1, 0), id="1", init=lambda context: None, requires=(other.at(1, 3),))
    assert fitting.misfit == ""
    misfitting = Plugin(A, id="1", init=lambda context: None, requires=(other.at(1, 4), other.at(2, 0)))
    assert misfitting.misfit == (
        "it was written for version 1.4 of type.b, and this daemon has 1.3; install a plugin and a kernel that fit"
    )


@pytest.mark.parametrize(("kind", "steps"), [(HOOK, ()), (A, (object,))])
def test_steps_belong_to_hook_plugins(kind: PluginType[object], steps: tuple[type[object], ...]) -> None:
    """Others could declare some that are never called."""
    with pytest.raises(ValueError, match=r"a plugin of type io\.windlass\.hook\.v1 has steps, and no other has"):
        Plugin(kind, id="1", init=lambda context: None, steps=steps)


def test_a_declaration_cannot_be_changed() -> None:
    """What was found is what is started."""
    plugin = Plugin(A, id="1", init=lambda context: None)
    with pytest.raises(FrozenInstanceError):
        plugin.id = "2"  # type: ignore[misc] # that is what is tested
    assert plugin.uri == "type.a.1"


def test_facts_of_one_plugin_are_not_those_of_another() -> None:
    """Each begins with none."""
    Meta().capabilities.append("x")
    assert Meta().capabilities == []


@pytest.mark.parametrize(
    "meta",
    [
        Meta(exports={"root": 7}),  # type: ignore[dict-item] # that is what is tested
        Meta(exports={7: "root"}),  # type: ignore[dict-item] # as above
        Meta(capabilities=[None]),  # type: ignore[list-item] # as above
        Meta(platforms=[("linux", "amd64", 1)]),  # type: ignore[list-item] # as above
    ],
)
def test_facts_that_no_client_could_be_sent_are_refused(meta: Meta) -> None:
    """One of them would keep clients from seeing any plugin."""
    check_meta(Meta([("linux", "arm64", "v8")], {"root": "/x"}, ["remap-ids"]))
    with pytest.raises(InvalidArgument, match="which is not text"):
        check_meta(meta)


class Reader(Protocol):
    """A contract of two methods, one with a body."""

    limit: int = 5

    def read(self) -> str:
        """Return what is there."""
        ...

    def twice(self) -> str:
        """Return it twice, which an implementation may do better."""
        return self.read() * 2


class Inherits(Reader):
    """Takes over what the contract does, and does the rest."""

    def read(self) -> str:
        return "x"


def test_what_a_contract_does_itself_need_not_be_done_again() -> None:
    """A method with a body, or an attribute, is no duty of an implementation."""
    check_instance(Inherits(), Reader)
    assert Inherits().twice() == "xx"


@pytest.mark.parametrize("instance", [None, object(), 7])
def test_without_a_contract_anything_will_do(instance: object) -> None:
    """Types of others may say nothing of their instances."""
    check_instance(instance, None)


def test_a_method_is_quick_by_its_authors_word_only() -> None:
    """Another of the same class is not, nor is anything that merely has the attribute of another kind."""

    class Store:
        @quick
        def info(self) -> str:
            return "x"

        def read(self) -> str:
            return "y"

    store = Store()
    assert (is_quick(store.info), is_quick(store.read), is_quick(None)) == (True, False, False)
    assert store.info() == "x"


def test_a_step_says_how_it_is_called() -> None:
    """Its policy always, ten seconds unless it says otherwise; a function without the mark is no step."""

    class Steps:
        @step(CLOSED)
        def admit(self, name: str) -> None: ...

        @step(OPEN, deadline=0.5, firstresult=True)
        def choose(self) -> str | None: ...

        def helper(self) -> None: ...

    assert step_of(Steps.admit) == Step(CLOSED, 10.0, firstresult=False)
    assert step_of(Steps.choose) == Step(OPEN, 0.5, firstresult=True)
    assert step_of(Steps.helper) is None


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Attribute:
    name = "n"


class Own:
    def __init__(self) -> None:
        self.name = "n"


class Computed(Named):
    @property
    def name(self) -> str:
        raise AssertionError("it is asked for when it is needed")


class Nameless(Named):
    pass


@pytest.mark.parametrize("instance", [Attribute(), Own(), Computed()])
def test_a_property_of_a_contract_may_be_any_attribute(instance: object) -> None:
    check_instance(instance, Named)


@pytest.mark.parametrize("kind", [Nameless, object])
def test_a_property_of_a_contract_must_be_there(kind: type[object]) -> None:
    with pytest.raises(InvalidArgument, match=rf"of class {kind.__name__}, which lacks name of Named"):
        check_instance(kind(), Named)
