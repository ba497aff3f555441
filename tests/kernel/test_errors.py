"""The error classes: each travels as its status, and what a plugin raises becomes what every caller can handle."""

from __future__ import annotations

import errno

import pytest

from windlass import errors
from windlass.errors import BY_CODE, Code, Error, NoSpace, NotFound, ResourceExhausted

CODES = {name: value for name, value in vars(Code).items() if name.isupper()}


def test_the_codes_are_those_of_grpc() -> None:
    """By name and number, every one."""
    import grpc

    assert {code.name: code.value[0] for code in grpc.StatusCode} == CODES


def test_every_code_but_ok_and_unknown_has_a_class() -> None:
    """UNKNOWN is what any other exception travels as, and OK is not an error."""
    assert set(CODES.values()) - set(BY_CODE) == {Code.OK, Code.UNKNOWN}
    assert all(kind.code == code for code, kind in BY_CODE.items())


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_survives_the_way_over_a_wire(code: int) -> None:
    """A peer gets the class that was raised, with its message."""
    arrived = errors.from_code(code, "snapshot layer-1 does not exist")

    assert (type(arrived), arrived.code, str(arrived)) == (BY_CODE[code], code, "snapshot layer-1 does not exist")


@pytest.mark.parametrize("code", [Code.OK, Code.UNKNOWN, 17, 99, -1])
def test_a_code_that_has_no_class_is_an_error_all_the_same(code: int) -> None:
    """A newer peer may send what we do not know."""
    arrived = errors.from_code(code, "what?")

    assert (type(arrived), arrived.code, str(arrived)) == (Error, Code.UNKNOWN, "what?")
    assert errors.name_of(code) == "Unknown"


def test_names_in_logs_are_those_of_the_classes() -> None:
    assert errors.name_of(Code.NOT_FOUND) == "NotFound"
    assert errors.name_of(Code.DEADLINE_EXCEEDED) == "DeadlineExceeded"


def test_a_full_disk_is_a_limit_that_was_reached() -> None:
    """Its own class for those who can do something about it, the status of its base for everybody else."""
    assert issubclass(NoSpace, ResourceExhausted)
    assert NoSpace("no").code == Code.RESOURCE_EXHAUSTED
    assert BY_CODE[Code.RESOURCE_EXHAUSTED] is ResourceExhausted


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (NoSpace("no space left in /x"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (ResourceExhausted("too many"), False),
        (ValueError("ENOSPC"), False),
    ],
)
def test_what_says_that_a_disk_is_full(error: Exception, full: bool) -> None:
    """Space and quota; an error of the disk itself is another thing."""
    assert errors.is_full(error) is full


@pytest.mark.parametrize("error", [NotFound("x"), ValueError("x"), OSError(2, "x"), KeyError("x")])
def test_an_ordinary_exception_stays_what_it_is(error: Exception) -> None:
    assert errors.as_exception(error) is error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_what_would_end_the_daemon_becomes_an_error_of_the_plugin(kind: type[BaseException]) -> None:
    """The message names who raised what, and the cause is kept for the log."""
    raised = kind("3")

    given = errors.as_exception(raised, "plugin type.a.1")

    assert isinstance(given, RuntimeError)
    assert str(given) == f"plugin type.a.1 raised {kind.__name__}: 3"
    assert given.__cause__ is raised


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFound("image x does not exist"), "image x does not exist"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (SystemExit(), "SystemExit"),
    ],
)
def test_a_foreign_error_is_shown_with_its_class(error: BaseException, text: str) -> None:
    """``'x'`` alone would tell an operator nothing."""
    assert errors.with_class(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/run/x"), "No such file or directory: /run/x"),
        (OSError(errno.EPERM, "Operation not permitted"), "Operation not permitted"),
        (OSError(errno.ENOENT, "No such file or directory", b"/run/x"), "No such file or directory"),
        (OSError("no number at all"), "no number at all"),
    ],
)
def test_an_error_of_the_system_is_shown_without_its_number(error: OSError, text: str) -> None:
    assert errors.in_words(error) == text
