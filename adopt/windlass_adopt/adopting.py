"""Taking over, and giving back; both may be killed at any moment and run again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_adopt import journal, returning, staging
from windlass_adopt.journal import BACK, FORWARD, Journal, Journals
from windlass_adopt.moves import steps_of
from windlass_adopt.places import KEPT, Places
from windlass_adopt.plan import Plan, refuse_what_is_left
from windlass_adopt.steps import AnyStep, Move
from windlass_storage.disks import disk_errors, private_directory


def adopt(plan: Plan, leave_behind: bool = False) -> None:
    """Take over what ``plan`` says. Raises Error; then everything is as it was before."""
    places, journals = plan.places, Journals(plan.places.root)
    staging.check_target(places)
    if not leave_behind:
        refuse_what_is_left(plan)
    with disk_errors(f"write below {places.root}", places.root):
        private_directory(journals.directory)
    # What an earlier one was given back from, or a journal that was never written.
    shutil.rmtree(places.aside, ignore_errors=True)
    shutil.rmtree(places.state / journal.DIRECTORY, ignore_errors=True)
    staging.stage(plan)
    try:
        todo = steps_of(plan)
        with disk_errors(f"write below {journals.directory}", places.root):
            journals.begin(Journal(str(places.source), str(places.source_state), tuple(todo)))
    except BaseException:
        staging.discard(places)
        raise
    _go_on(places, journals, todo)


def resume(places: Places) -> bool:
    """Finish an adoption that was interrupted, and return whether there was one. Raises FailedPrecondition, Error."""
    journals = Journals(places.root)
    begun = journals.unfinished()
    if begun is None:
        return False
    if begun.direction == BACK:
        raise FailedPrecondition("a return to containerd was interrupted; finish it by windlassd adopt --back")
    _check_same(begun, places)
    _go_on(places, journals, list(begun.steps))
    return True


def give_back(places: Places) -> list[str]:
    """Undo an adoption, finished or not, and return what containerd does not get, or not as it is now.

    Raises NotFound without an adoption, FailedPrecondition while there are tasks that containerd cannot take.
    """
    journals = Journals(places.root)
    begun = journals.unfinished() or journals.done()
    if begun is None:
        raise NotFound(f"Windlass's root {places.root} has adopted nothing; set --root to one that has")
    _check_same(begun, places)
    returning.check_tasks(places)
    lines = returning.differences(places) if journals.done() else []
    with disk_errors(f"write below {journals.directory}", places.root):
        if begun.direction == FORWARD:
            aside = [Move(str(target), str(source)) for source, target in returning.new_snapshots(places)]
            begun = replace(begun, direction=BACK, steps=(*begun.steps, *aside))
            journals.begin(begun)
        _undo(places, journals, begun.steps)
    return lines


def _go_on(places: Places, journals: Journals, todo: Sequence[AnyStep]) -> None:
    """Do all steps; when one cannot be done, undo all."""
    try:
        with disk_errors(f"move what is in {places.source} to {places.root}", places.root):
            journal.do(todo)
            journals.finish()
    except (Error, OSError) as error:
        reason = str(error) if isinstance(error, Error) else f"{error.filename}: {error.strerror}"
        try:
            _undo(places, journals, todo)
        except (Error, OSError) as second:
            raise FailedPrecondition(
                f"not all is adopted: {reason}; and not all can be undone: {second}; "
                "remove the cause, then finish it by windlassd adopt, or windlassd adopt --back"
            ) from error
        if isinstance(error, Error):
            raise
        raise FailedPrecondition(f"nothing is adopted: {reason}") from error


def _undo(places: Places, journals: Journals, steps: Sequence[AnyStep]) -> None:
    """Undo all steps, and forget them. Raises FailedPrecondition while something of containerd's is still here."""
    journal.undo(steps)
    left = next((path for path in (journals.directory / KEPT).rglob("*") if path.is_file()), None)
    if left is not None:
        raise FailedPrecondition(f"{left} is containerd's, and something is where it belongs; move that away")
    journals.forget()
    shutil.rmtree(journals.directory, ignore_errors=True)
    shutil.rmtree(places.state / journal.DIRECTORY, ignore_errors=True)


def _check_same(begun: Journal, places: Places) -> None:
    if (begun.source, begun.source_state) != (str(places.source), str(places.source_state)):
        raise FailedPrecondition(
            f"what was adopted is from --from {begun.source} --state {begun.source_state}; name these directories"
        )
