"""Traces: which client's request the code at hand works for. The kernel carries that along; a plugin may record it.

A context variable holds the span, the operation that is under way, and goes with
each call through gates, pools, hooks and loops of plugins' own. As long as `active`
is false no span begins, and the flag is all that anybody looks at.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

Facts = Mapping[str, str | int]

SERVER, CLIENT, INTERNAL = "server", "client", "internal"
"""Kinds of spans: of a request that came, of one that is sent, of anything else."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_MOST_SUBJECTS = 4096


class Span:
    """An operation of a trace. This class only names it; a recorder's subclass measures it."""

    __slots__ = ("id", "trace")

    def __init__(self, trace: str, id: str) -> None:
        """Have the identifiers of the trace and of this span, in hexadecimal digits."""
        self.trace = trace
        self.id = id

    def headers(self) -> Mapping[str, str]:
        """Return what a request to a peer says of this span, as headers or metadata (W3C Trace Context)."""
        return {"traceparent": f"00-{self.trace}-{self.id}-00"}

    def note(self, **facts: str | int) -> None:
        """Add facts about the operation."""

    def end(self, error: str = "") -> None:
        """Note the end of the operation, and why it failed if it did."""


Record = Callable[[str, str, Mapping[str, str], Facts], Span]
"""Begins a span: takes name, kind, the headers of the request that it is for (or none), and facts."""

current: ContextVar[Span | None] = ContextVar("span", default=None)
active = False
"""Whether anything reads spans: a recorder, or the log."""
recorder: Record | None = None
"""What begins spans that are measured; see `record`."""
_last: dict[str, Span] = {}
"""By subject, the oldest first."""
_touching = threading.Lock()


def record(begin: Record | None) -> None:
    """Have ``begin`` record every span from now on, or none any more."""
    global active, recorder
    active, recorder = active or begin is not None, begin


def begin(name: str, kind: str, headers: Mapping[str, str], facts: Facts) -> Span:
    """Begin the span of a request that has come with ``headers``, which may name the client's trace."""
    if recorder is not None:
        return recorder(name, kind, headers, facts)
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return Span(*found.groups()) if found else Span(os.urandom(16).hex(), os.urandom(8).hex())


@contextlib.contextmanager
def span(name: str, kind: str = INTERNAL, **facts: str | int) -> Iterator[Span | None]:
    """Make the block a span of the current trace, if there is one and it is recorded; gives the current span."""
    around = current.get()
    if recorder is None or around is None:
        yield around
        return
    found = recorder(name, kind, {}, facts)
    token = current.set(found)
    try:
        yield found
    except BaseException as error:
        found.end(f"{type(error).__name__}: {error}")
        raise
    else:
        found.end()
    finally:
        current.reset(token)


NOTHING = contextlib.nullcontext()
"""What stands in a ``with`` for a span that nothing records."""


def touch(subject: str) -> None:
    """Note that the current span is the last that is about ``subject``, for what happens to it later."""
    if active and (found := current.get()) is not None:
        with _touching:
            _last.pop(subject, None)
            _last[subject] = found
            if len(_last) > _MOST_SUBJECTS:
                del _last[next(iter(_last))]


def last(subject: str) -> Span | None:
    """Return the span that `touch` has noted last for ``subject``."""
    return _last.get(subject)
