"""A data class of ours is one of the standard library's, whatever is done with it."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import TYPE_CHECKING

import pytest

from windlass import records
from windlass.records import dataclass

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
    assert Point(1) != Checked(1)  # type: ignore[comparison-overlap] # of two classes
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


def test_nothing_is_compiled_until_there_are_several_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before are as those after it."""
    compiled: list[str] = []
    original = records._init_of

    def count(made: type[DataclassInstance]) -> Callable[..., None]:
        compiled.append(made.__name__)
        return original(made)

    monkeypatch.setattr(records, "_init_of", count)

    @dataclass(frozen=True)
    class Late:
        a: int
        b: list[int] = field(default_factory=list)
        c: str = field(init=False)
        d: str = field(init=False, default="d")

        def __post_init__(self) -> None:
            object.__setattr__(self, "c", f"{self.a}{self.b}")

    made = [(Late(1), Late(a=1, b=[2])) for _ in range(3)]
    assert {(str(each), str(other)) for each, other in made} == {(str(Late(1)), str(Late(1, b=[2])))}
    assert (made[0][1].c, made[0][1].d) == ("1[2]", "d")
    assert made[0][0].b is not made[1][0].b
    assert compiled == ["Late"]


@pytest.mark.parametrize(("args", "named"), [((), {}), ((1, 2, 3, 4, 5), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_wrong_arguments_are_refused_by_the_first_instance_too(args: tuple[int, ...], named: dict[str, int]) -> None:
    @dataclass(frozen=True)
    class First:
        x: int
        y: int = 0

    with pytest.raises(TypeError, match="argument"):
        First(*args, **named)
    assert First(1) == First(x=1, y=0)
