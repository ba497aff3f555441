"""Every pair of state and verb: what is allowed, and what the refusal says."""

from __future__ import annotations

import itertools

import pytest

from windlass.errors import Code, Error
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.process import CREATED, PAUSED, RUNNING, STATE_NAMES, STOPPED, TRANSITIONS, Process
from windlass_shim_runc.reaper import Reaper
from windlass_shim_runc.streams import Streams

VERBS = ("start", "pause", "resume", "exec", "update", "delete")
ALLOWED = {
    CREATED: {"start", "exec", "update", "delete"},
    RUNNING: {"pause", "exec", "update"},
    PAUSED: {"resume", "update"},
    STOPPED: {"delete"},
}


@pytest.mark.parametrize(("state", "verb"), list(itertools.product(ALLOWED, VERBS)))
def test_a_verb_is_allowed_or_refused_by_name(state: int, verb: str) -> None:
    """A refusal is UNKNOWN and reads "cannot <verb> a <state> container" (docs/containerd 4.7)."""
    loop = Loop()
    process = Process(loop, "web", "", Streams(loop, Reaper(loop), ("", "", "", False)))
    process.state = state

    if verb in ALLOWED[state]:
        assert process.check(verb) == TRANSITIONS[state, verb]
    else:
        with pytest.raises(Error, match=f"cannot {verb} a {STATE_NAMES[state]} container: web") as info:
            process.check(verb)
        assert info.value.code == Code.UNKNOWN
    loop.close()


@pytest.mark.parametrize("state", list(ALLOWED))
def test_an_exit_stops_a_process_in_any_state(state: int) -> None:
    """Whatever it was doing, a process that has ended is stopped."""
    loop = Loop()
    process = Process(loop, "web", "", Streams(loop, Reaper(loop), ("", "", "", False)))
    process.state = state
    process.on_exit(137, 5)
    assert (process.state, process.exit_status, process.exited_at, process.exited.is_set) == (STOPPED, 137, 5, True)
    loop.close()
