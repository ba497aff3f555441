"""Log lines, as logrus writes them: each record one line whatever is in it, and a stack trace after an error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from windlass.process import logs


# Any, here and below: fields of a record, of whatever type
def record(message: str, *arguments: object, level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("windlass.test", level, "x.py", 1, message, arguments, None)
    vars(made).update(fields)
    return made


def failed() -> logging.LogRecord:
    made = record("it failed", level=logging.ERROR)
    try:
        raise ValueError("no")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ({}, ""),
        ({"namespace": "k8s.io"}, " namespace=k8s.io"),
        ({"path": "/run/a@b+c^d"}, " path=/run/a@b+c^d"),
        ({"why": "no space"}, ' why="no space"'),
        ({"why": ""}, ' why=""'),
        ({"why": 'a "word"'}, ' why="a \\"word\\""'),
        ({"why": "two\nlines"}, ' why="two\\nlines"'),
        ({"count": 3, "done": True}, " count=3 done=True"),
        ({"image": "ä"}, ' image="ä"'),
    ],
)
def test_fields_follow_the_message_and_are_quoted_if_need_be(fields: dict[str, Any], tail: str) -> None:
    """By the rules of logrus, so that what reads containerd's log reads ours."""
    line = logs.Text().format(record("hello", **fields))

    assert line.endswith(f'level=info msg="hello"{tail}')
    assert "\n" not in line


@pytest.mark.parametrize("form", [logs.Text(), logs.Json()])
@pytest.mark.parametrize("text", ["two\nlines", "a\rb", 'a "quoted" word', "\x1b[31mred", "ä", "\\", "\0"])
def test_a_record_is_one_line_that_is_read_again(form: logging.Formatter, text: str) -> None:
    """No message can pretend to be a second record, and none is changed by being written."""
    line = form.format(record("%s", text))

    assert "\n" not in line and "\r" not in line
    found = line.partition("msg=")[2] if isinstance(form, logs.Text) else json.dumps(json.loads(line)["msg"])
    assert json.loads(found) == text


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logs.TRACE, "trace"),
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.WARNING, "warning"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "fatal"),
        (logs.PANIC, "panic"),
    ],
)
def test_levels_have_the_names_of_logrus(level: int, name: str) -> None:
    """What reads containerd's log reads ours, and every name can be configured."""
    assert f" level={name} " in logs.Text().format(record("x", level=level))
    assert json.loads(logs.Json().format(record("x", level=level)))["level"] == name
    assert logs.LEVELS[name] == level


def test_the_time_is_in_utc_to_the_microsecond() -> None:
    """So that lines of two machines can be put in order."""
    made = record("x")
    made.created = 1_700_000_000.000001
    assert logs.Text().format(made).startswith('time="2023-11-14T22:13:20.000001Z" ')
    assert json.loads(logs.Json().format(made))["time"] == "2023-11-14T22:13:20.000001Z"


def test_an_error_brings_its_stack_trace() -> None:
    """In text on the lines after it, in JSON as a field, so that there it stays one line."""
    text, object_ = logs.Text().format(failed()), logs.Json().format(failed())

    assert text.splitlines()[0].endswith('level=error msg="it failed"')
    assert text.splitlines()[1].startswith("Traceback") and text.endswith("ValueError: no")
    assert "\n" not in object_ and "ValueError: no" in json.loads(object_)["stack"]


def test_what_is_no_json_is_written_as_text() -> None:
    """A field may be anything: logging never fails for it."""
    assert json.loads(logs.Json().format(record("x", error=ValueError("no"))))["error"] == "no"


@pytest.mark.parametrize(
    ("name", "level", "passes"),
    [
        ("windlass.boot", logging.DEBUG, True),
        ("windlass_content", logging.DEBUG, True),
        ("theirs.module", logging.DEBUG, True),
        ("urllib3.connection", logging.DEBUG, False),
        ("urllib3.connection", logging.WARNING, True),
        ("theirsandmore", logging.INFO, False),
    ],
)
def test_libraries_are_heard_from_a_warning_on(name: str, level: int, passes: bool) -> None:
    """Plugins of others are no libraries: they are known by the packages that discovery names."""
    made = record("x", level=level)
    made.name = name
    assert logs.Ours(["theirs"]).filter(made) is passes
