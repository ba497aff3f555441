"""What a request is about, for the log: names that most requests of the API have under the same few fields."""

from __future__ import annotations

FIELDS = ("container_id", "exec_id", "pod_sandbox_id", "sandbox_id")
LONGEST = 128
_INNER = ("container", "sandbox")
_CONTAINERS = "/containerd.services.containers."


def subject(path: str, request: object) -> dict[str, str]:
    """Return the container, process and sandbox that a request names, by the names of these fields."""
    found = {field: getattr(request, field, "") for field in FIELDS}
    for inner in _INNER:
        found[f"{inner}_id"] = getattr(getattr(request, inner, None), "id", "") or found[f"{inner}_id"]
    if path.startswith(_CONTAINERS):
        found["container_id"] = found["container_id"] or getattr(request, "id", "")
    return {name: value[:LONGEST] for name, value in found.items() if isinstance(value, str) and value}
