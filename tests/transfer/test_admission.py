"""Admission: whoever has a say is asked, and who has none for its own fault is missed."""

from __future__ import annotations

import pytest

from windlass.contracts.images import ImageHooks
from windlass.contracts.values import Descriptor
from windlass.contracts.verifiers import Judgement
from windlass.errors import PermissionDenied
from windlass.gate import Gate
from windlass.hooks import Hooks, hookimpl
from windlass.plugin import Record, State
from windlass_transfer.admission import Admission, failed_verifiers

DESC = Descriptor("m", "sha256:" + 64 * "0", 1)
VERIFIERS = "io.containerd.image-verifier.v1"


class Says:
    def __init__(self, judgement: Judgement | Exception) -> None:
        self.judgement = judgement

    async def verify(self, name: str, desc: Descriptor) -> Judgement:
        if isinstance(self.judgement, Exception):
            raise self.judgement
        return self.judgement


async def refusal(admission: Admission) -> str:
    with pytest.raises(PermissionDenied) as refused:
        await admission.admit("default", "example.org/a:1", DESC)
    return str(refused.value)


async def test_all_have_to_agree() -> None:
    """One that objects, or cannot judge, decides."""
    yes = Says(Judgement(True))
    await Admission({"yes": yes}, Hooks()).admit("default", "example.org/a:1", DESC)
    assert "is refused by verifier no: why" in await refusal(
        Admission({"yes": yes, "no": Says(Judgement(False, "why"))}, Hooks())
    )
    told = await refusal(Admission({"sick": Says(KeyError("x")), "yes": yes}, Hooks()))
    assert told.endswith("could not be judged by verifier sick: KeyError: 'x'")


async def test_a_hook_is_asked_whether_or_not_it_is_a_coroutine() -> None:
    """It names the plugin, and the exception."""

    class Refuses:
        @hookimpl
        async def admit_image(self, name: str) -> None:
            raise KeyError(name)

    hooks = Hooks()
    hooks.add(Refuses(), Gate("type.a.1", own_loop=True), [ImageHooks])
    told = await refusal(Admission({}, hooks))
    assert told.endswith("type.a.1 refuses admit_image: KeyError: 'example.org/a:1'")


async def test_a_hook_that_did_not_start_is_missed() -> None:
    """It wanted a say: nothing is admitted until its plugin is mended or disabled."""
    hooks = Hooks()
    hooks.fail("type.a.1", "there is no step admit_imag", [ImageHooks])
    assert "because type.a.1 did not start and might refuse it" in await refusal(Admission({}, hooks))


def test_verifiers_that_failed_are_those_that_nobody_decided_about() -> None:
    """A dot in an ID does not hide one; what is skipped or disabled is not among them."""
    records = [
        Record(f"{VERIFIERS}.{id}", VERIFIERS, id, state, error=error)
        for id, state, error in (
            ("a", State.FAILED, KeyError("x")),
            ("b", State.SKIPPED, None),
            ("c", State.DISABLED, None),
            ("d", State.OK, None),
        )
    ]
    dotted = Record(f"{VERIFIERS}.e.f", f"{VERIFIERS}.e", "f", State.FAILED, error=ImportError("gone"))
    other = Record("io.containerd.image-verifier.v10.g", "io.containerd.image-verifier.v10", "g", State.FAILED)
    assert failed_verifiers([*records, dotted, other]) == {
        f"{VERIFIERS}.a": "KeyError: 'x'",
        f"{VERIFIERS}.e.f": "gone",
    }
