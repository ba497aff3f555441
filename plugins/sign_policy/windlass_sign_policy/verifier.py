"""The verifier: asks the operator's policy, and, if that wants a signature, the registry that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.values import Descriptor
from windlass.contracts.verifiers import ImageVerifier, Judgement
from windlass.gate import offloaded
from windlass.typing import override
from windlass_images import signpolicy
from windlass_images.signpolicy import Decision

if TYPE_CHECKING:
    from windlass_images.signatures import Signature

Find = Callable[[str, str], "Sequence[Signature]"]
"""Returns the signatures kept with an image, by its name and digest; it may block. Raises errors of contracts."""


class SignPolicy(ImageVerifier):
    """Verifies by a policy file, which it reads each time, so that a change holds at once."""

    def __init__(self, path: Path, find: Find, timeout: float) -> None:
        """Judge by the policy at ``path``, for at most ``timeout`` seconds an image."""
        self._find = find
        self.configure(path, timeout)

    def configure(self, path: Path, timeout: float) -> None:
        """Judge the next images by another policy, or within another time."""
        self._path = path
        self._timeout = timeout

    @override
    async def verify(self, name: str, desc: Descriptor) -> Judgement:
        """Judge an image. Raises FailedPrecondition for a policy with errors, and what finding signatures raises."""
        return await offloaded(self._judge, deadline=self._timeout)(name, desc.digest)

    def _judge(self, name: str, digest: str) -> Judgement:
        decision = signpolicy.load(self._path).decide(name)
        if decision.require == "allow":
            return Judgement(True, f"allowed by {decision.place}")
        if decision.require == "deny":
            return Judgement(False, f"denied by {decision.place}")
        if decision.require == "digest":
            if name.endswith(f"@{digest}"):
                return Judgement(True, f"named by its digest, as {decision.place} requires")
            return Judgement(False, f"{decision.place} requires a name with a digest; pull it as NAME@{digest}")
        return self._judge_signed(name, digest, decision)

    def _judge_signed(self, name: str, digest: str, decision: Decision) -> Judgement:
        from windlass_images import signatures  # with all of cryptography, which few daemons need

        keys = signatures.load_keys(decision.keys)
        found = self._find(name, digest)
        if signatures.is_signed(digest, found, keys):
            return Judgement(True, f"signed, as {decision.place} requires")
        count = f"none of its {len(found)} signatures" if found else "no signature of it"
        listed = ", ".join(str(path) for path in decision.keys)
        return Judgement(False, f"{count} is by a key that {decision.place} requires: {listed}")
