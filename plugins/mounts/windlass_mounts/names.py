"""Names of activations, and what filters see of one."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.contracts.activations import Activation
from windlass.contracts.values import check_identifier
from windlass.errors import FailedPrecondition, InvalidArgument
from windlass.filters.expressions import ABSENT, Adaptor, label_of, value_of

MAX_NAME = 1024


def adaptor(activation: Activation) -> Adaptor:
    """Show an activation to a filter."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["name"]:
                return value_of(activation.name)
            case ["labels", *_]:
                return label_of(activation.labels, path)
        return ABSENT

    return field


def check_names(namespace: str, name: str = "-") -> None:
    """Raise FailedPrecondition without a namespace, InvalidArgument for one or a name that is not valid."""
    if not namespace:
        raise FailedPrecondition("namespace is required")
    check_identifier("namespace", namespace)
    if not name or len(name) > MAX_NAME or "\0" in name:
        raise InvalidArgument(f"mount name {shown(name)!r} is not valid: 1 to {MAX_NAME} characters")


def shown(name: str) -> str:
    """Return a name as messages have it."""
    return name if len(name) <= 80 else name[:80] + "…"
