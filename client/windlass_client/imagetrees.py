"""What an image consists of, drawn as a tree and as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator

from windlass_client import output
from windlass_images import platforms
from windlass_images.survey import Node


def record(node: Node, seen: set[str] | None = None) -> dict[str, object]:
    """Return a node and all below it as JSON; what was there before is ``repeated``, without what is below it."""
    seen = set() if seen is None else seen
    repeated = _repeats(node, seen)
    found: dict[str, object] = {
        "role": node.role,
        "digest": node.target.digest,
        "type": node.target.media_type,
        "size": node.target.size,
        "present": node.present,
        "platform": _platform(node),
        "annotations": dict(node.target.annotations),
        "repeated": repeated,
        "children": [] if repeated else [record(child, seen) for child in node.children],
        "referrers": [
            {"digest": referrer.digest, "type": referrer.media_type, "size": referrer.size}
            for referrer in node.referrers
        ],
    }
    return found


def lines(node: Node, before: str = "", last: bool = True, seen: set[str] | None = None) -> Iterator[str]:
    """Yield the lines of a tree; what is missing is marked, and so is what is not shown once more."""
    seen = set() if seen is None else seen
    repeated = _repeats(node, seen)
    yield f"{before}{'└─' if last else '├─'} {_describe(node)}{' (as above)' if repeated else ''}"
    if repeated:
        return
    before += "   " if last else "│  "
    below = [*node.children]
    referrers = [
        f"referrer {referrer.digest} {output.size(referrer.size)} {output.printable(referrer.media_type)}"
        for referrer in node.referrers
    ]
    bar = "│  " if below or referrers else "   "
    for key, value in sorted(node.target.annotations.items()):
        yield f"{before}{bar}{output.printable(key)}={output.printable(value)}"
    for number, child in enumerate(below):
        yield from lines(child, before, number == len(below) - 1 and not referrers, seen)
    for number, text in enumerate(referrers):
        yield f"{before}{'└─' if number == len(referrers) - 1 else '├─'} {text}"


def _repeats(node: Node, seen: set[str]) -> bool:
    """Return whether all below a node was shown before: indexes may name each other without end."""
    if not node.children or node.target.digest not in seen:
        seen.add(node.target.digest)
        return False
    return True


def _describe(node: Node) -> str:
    words = [node.role, _platform(node), node.target.digest, output.size(node.target.size)]
    if node.role in ("layer", "artifact", "blob"):
        words.append(output.printable(node.target.media_type))
    if not node.present:
        words.append("(missing)")
    return " ".join(word for word in words if word)


def _platform(node: Node) -> str:
    platform = node.platform
    return output.printable(platforms.write(platform)) if platform else ""
