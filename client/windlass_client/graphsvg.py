"""Draws an initialization graph as SVG: columns in start order, a box for each type, curves from requirement to user.

The layout is the usual layered one: longest paths give the columns, long edges get a lane in every column they
cross, and a few sweeps put each box near what it is connected with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from windlass_client.plugingraph import DISABLED, FAILED, OK, SKIPPED, Kind, Node

ROW, TITLE, PAD, GAP, LANE, COLUMN, MARGIN = 18, 26, 8, 22, 10, 90, 24
CHARACTER = 7.0
COLOURS = {OK: "#2da44e", SKIPPED: "#9aa4af", DISABLED: "#9aa4af", FAILED: "#cf222e"}
SWEEPS = 8


@dataclass
class Box:
    """A type, or with ``kind`` None the lane of an edge in a column that it crosses."""

    kind: Kind | None
    column: int
    before: list[Box] = field(default_factory=list)
    after: list[Box] = field(default_factory=list)
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def height(self) -> float:
        """Height of the box itself."""
        if self.kind is None:
            return LANE
        return TITLE + max(1, len(self.kind.plugins)) * ROW + PAD

    @property
    def middle(self) -> float:
        """Where edges arrive and leave."""
        return self.y + self.height / 2


def svg(kinds: Sequence[Kind]) -> str:
    """Return the graph as an SVG document."""
    columns = _layers(kinds)
    _order(columns)
    _place(columns)
    boxes = [box for column in columns for box in column]
    width = max((box.x + box.width for box in boxes), default=0) + MARGIN
    height = max((box.y + box.height for box in boxes), default=0) + MARGIN + ROW
    style = f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" {style}>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    parts += [_edge(box, after) for box in boxes for after in box.after]
    parts += [_lane(box) for box in boxes if box.kind is None]
    parts += [_box(box, box.kind) for box in boxes if box.kind is not None]
    parts += [_legend(height - MARGIN + 4), "</svg>"]
    return "\n".join(parts) + "\n"


def _layers(kinds: Sequence[Kind]) -> list[list[Box]]:
    boxes: dict[str, Box] = {}
    for kind in kinds:
        column = max((boxes[type].column + 1 for type in kind.requires), default=0)
        boxes[kind.type] = Box(kind, column)
    columns: list[list[Box]] = [[] for _ in range(max((box.column for box in boxes.values()), default=-1) + 1)]
    for box in boxes.values():
        columns[box.column].append(box)
    lanes: dict[tuple[str, int], Box] = {}
    for kind in kinds:
        for type in kind.requires:
            last, end = boxes[type], boxes[kind.type]
            for column in range(last.column + 1, end.column):
                # Edges from one box share their lanes.
                lane = lanes.get((type, column))
                if lane is None:
                    lane = lanes[type, column] = Box(None, column, [last])
                    last.after.append(lane)
                    columns[column].append(lane)
                last = lane
            last.after.append(end)
            end.before.append(last)
    return columns


def _order(columns: list[list[Box]]) -> None:
    """Sort each column by where its neighbours are, forth and back."""
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            rank = {id(box): number for other in columns for number, box in enumerate(other)}
            weights = {}
            for number, box in enumerate(column):
                near = box.before if forward else box.after
                weights[id(box)] = sum(rank[id(other)] for other in near) / len(near) if near else number
            column.sort(key=lambda box: weights[id(box)])


def _place(columns: list[list[Box]]) -> None:
    x: float = MARGIN
    for column in columns:
        width = max(_width(box.kind) for box in column)
        y: float = MARGIN
        for box in column:
            box.x, box.y, box.width = x, y, width
            y += box.height + (GAP if box.kind else LANE)
        x += width + COLUMN
    tallest = max(sum(box.height + GAP for box in column) for column in columns) if columns else 0
    for column in columns:
        offset = (tallest - sum(box.height + GAP for box in column)) / 2
        for box in column:
            box.y += offset
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else reversed(columns):
            _settle(column)
    _compact([box for column in columns for box in column])


def _compact(boxes: list[Box]) -> None:
    """Take out what is empty across all columns, as it is between parts that have nothing to do with each other."""
    in_order = sorted(boxes, key=lambda box: box.y)
    shift = in_order[0].y - MARGIN if in_order else 0
    bottom: float = MARGIN
    for box in in_order:
        shift = max(shift, box.y - bottom - GAP)
        box.y -= shift
        bottom = max(bottom, box.y + box.height)


def _settle(column: list[Box]) -> None:
    """Move boxes towards the middle of their neighbours as far as those above and below let them."""
    for box in column:
        near = [*box.before, *box.after]
        if near:
            box.y += (sum(other.middle for other in near) / len(near) - box.middle) / 2
    for above, box in pairwise(column):
        box.y = max(box.y, above.y + above.height + (GAP if above.kind and box.kind else LANE))


def _width(kind: Kind | None) -> float:
    if kind is None:
        return 0
    longest = max([len(_short(kind.type)) * 1.12, *(len(node.id) + 2.5 for node in kind.plugins), 12])
    return longest * CHARACTER + 2 * PAD


def _short(type: str) -> str:
    return type.removeprefix("io.containerd.")


def _box(box: Box, kind: Kind) -> str:
    frame = "#cf222e" if not kind.plugins or any(node.state == FAILED for node in kind.plugins) else "#afb8c1"
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}"'
    title = f'x="{box.x + PAD:.1f}" y="{box.y + 17:.1f}"'
    parts = [
        f"<g><title>{escape(kind.type)}</title>",
        f'<rect {place} height="{box.height:.1f}" rx="6" fill="#f6f8fa" stroke="{frame}"/>',
        f'<text {title} font-weight="bold" fill="#1f2328">{escape(_short(kind.type))}</text>',
    ]
    y = box.y + TITLE
    for node in kind.plugins:
        parts.append(_row(node, box.x, y))
        y += ROW
    if not kind.plugins:
        parts.append(f'<text x="{box.x + PAD:.1f}" y="{y + 12:.1f}" fill="#cf222e">not installed</text>')
    return "".join([*parts, "</g>"])


def _row(node: Node, x: float, y: float) -> str:
    ink = "#1f2328" if node.state == OK else COLOURS[node.state]
    about = node.state + (f": {node.message}" if node.message else "")
    return (
        f"<g><title>{escape(about)}</title>"
        f'<circle cx="{x + PAD + 4:.1f}" cy="{y + 8:.1f}" r="4" fill="{COLOURS[node.state]}"/>'
        f'<text x="{x + PAD + 14:.1f}" y="{y + 12:.1f}" fill="{ink}">{escape(node.id)}</text></g>'
    )


def _edge(start: Box, end: Box) -> str:
    x, y, to_x, to_y = start.x + start.width, start.middle, end.x, end.middle
    bend = (to_x - x) / 2
    curve = f"M{x:.1f},{y:.1f} C{x + bend:.1f},{y:.1f} {to_x - bend:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
    arrow = "" if end.kind is None else f'<path d="M{to_x:.1f},{to_y:.1f} l-7,-3.5 v7 z" fill="#8c959f"/>'
    return f'<path d="{curve}" fill="none" stroke="#8c959f" stroke-width="1.3"/>{arrow}'


def _lane(box: Box) -> str:
    return f'<path d="M{box.x:.1f},{box.middle:.1f} h{box.width:.1f}" stroke="#8c959f" stroke-width="1.3"/>'


def _legend(y: float) -> str:
    parts, x = [], float(MARGIN)
    for state in (OK, SKIPPED, FAILED):
        label = "skipped or disabled" if state == SKIPPED else state
        parts.append(f'<circle cx="{x + 4:.1f}" cy="{y - 4:.1f}" r="4" fill="{COLOURS[state]}"/>')
        parts.append(f'<text x="{x + 13:.1f}" y="{y:.1f}" fill="#57606a">{label}</text>')
        x += 30 + len(label) * CHARACTER
    parts.append(
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#57606a">arrows lead from a requirement to what requires it</text>'
    )
    return "".join(parts)
