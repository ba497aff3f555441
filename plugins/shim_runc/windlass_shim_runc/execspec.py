"""The process spec of an exec."""

from __future__ import annotations

from windlass.errors import InvalidArgument


def with_terminal(spec: bytes, wanted: bool) -> bytes:
    """Return the spec of a process with a terminal, or without one, whatever it says itself; raises InvalidArgument."""
    lowered = spec.lower()
    # As Go writes it, there is nothing to do.
    if lowered.count(b'"terminal"') == wanted == spec.count(b'"terminal":true') and b"\\u00" not in lowered:
        return spec
    import json  # which few shims ever need

    try:
        process = json.loads(spec)
        # Go takes names in any case (encoding/json), and the last one counts.
        process = {name: value for name, value in process.items() if name.lower() != "terminal"}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"process spec of an exec is not a JSON object: {error}") from None
    return json.dumps({**process, "terminal": wanted}).encode()
