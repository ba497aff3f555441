"""A data class of ours is one of the standard library's, whatever is done with it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field

import pytest

from windlass import records
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    tags: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list, compare=False, repr=False)


@dataclass(frozen=True)
class Checked:
    """Has a check, and a name that is no argument."""

    size: int
    name: str = field(init=False, default="a name")

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size is negative")


class Special(Checked):
    def __init__(self) -> None:
        super().__init__(7)
        self.more = 1


def test_the_first_instance_is_like_those_after_it() -> None:
    assert [Point(1), Point(x=1, y=0)] == [Point(1), Point(1, 0)]
    assert (Point(1).y, Point(1).notes) == (0, [])
    assert Point(1).notes is not Point(1).notes


def test_it_is_equal_hashed_and_shown_by_its_fields() -> None:
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2, notes=["a"]) == Point(1, 2)
    assert hash(Point(1, 2, notes=["a"])) == hash(Point(1, 2))
    assert Point(1) != Checked(1)
    assert repr(Point(1, tags=("a",))) == "Point(x=1, y=0, tags=('a',))"


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Point()  # type: ignore[call-arg] # it is wrong
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=2)  # type: ignore[call-arg] # it is wrong


def test_nothing_can_be_set_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc] # it is frozen
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x


def test_what_inherits_has_attributes_of_its_own() -> None:
    special = Special()
    assert (special.size, special.name, special.more) == (7, "a name", 1)
    with pytest.raises(FrozenInstanceError):
        special.size = 8  # type: ignore[misc] # it is frozen

    @dataclasses.dataclass(frozen=True)
    class Further(Checked):
        again: int = 3

    assert (Further(1).size, Further(1, 4).again) == (1, 4)


def test_a_check_is_made_for_each() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="negative"):
            Checked(-1)


def test_the_standard_librarys_functions_know_it() -> None:
    point = Point(1, 2)
    assert dataclasses.replace(point, x=3) == Point(3, 2)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "tags": (), "notes": []}
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "tags", "notes"]
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == copy.copy(point) == point
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_what_is_special_is_left_to_the_standard_library() -> None:
    @dataclass
    class Open:
        a: int = 1

    @dataclass(frozen=True)
    class Own:
        a: int = 1

        def __repr__(self) -> str:
            return "own"

    opened = Open()
    opened.a = 2
    assert (opened, repr(Own()), Own()) == (Open(2), "own", Own(1))


def test_nothing_is_compiled_until_there_is_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    original = records._init_of
    monkeypatch.setattr(records, "_init_of", lambda made: (compiled.append(made.__name__), original(made))[1])

    @dataclass(frozen=True)
    class Late:
        a: int

    assert compiled == []
    assert [Late(1).a, Late(2).a] == [1, 2]
    assert compiled == ["Late"]
