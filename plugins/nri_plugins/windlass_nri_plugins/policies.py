"""Which failing plugin is a reason to refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from windlass_nri_plugins.config import CLOSED, Policy

REFUSABLE = frozenset(
    {"run_pod_sandbox", "update_pod_sandbox", "create_container", "start_container", "update_container"}
)
"""Steps that a plugin can refuse; pods and containers stop and go without it."""


class Policies:
    """The policies of the configuration, and which steps their plugins took part in when they were there."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """Know no plugin yet."""
        self._policies = policies
        self._steps: dict[str, frozenset[str]] = {}

    def registered(self, index: str, name: str, steps: Iterable[str]) -> None:
        """Know the steps of a plugin."""
        self._steps[self._key(index, name)] = frozenset(steps)

    def _key(self, index: str, name: str) -> str:
        full = f"{index}-{name}"
        return full if full in self._policies else name

    def refuses(self, index: str, name: str, step: str, labels: Mapping[str, str]) -> bool:
        """Tell whether the failure of a plugin in a step is a reason to refuse a pod with these labels."""
        policy = self._policies.get(self._key(index, name))
        return policy is not None and step in REFUSABLE and policy.on_failure == CLOSED and not policy.exempts(labels)

    def absent(self, step: str, there: Iterable[tuple[str, str]]) -> dict[str, Policy]:
        """Return the closed policies whose plugins are not among ``there`` and would have a say, by their names.

        Of a plugin that has not been there since the daemon began, each step that can be refused counts.
        """
        if step not in REFUSABLE:
            return {}
        present = {self._key(*each) for each in there}
        return {
            key: policy
            for key, policy in self._policies.items()
            if policy.on_failure == CLOSED and key not in present and step in self._steps.get(key, REFUSABLE)
        }
