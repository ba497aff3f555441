"""What `windlassd adopt` prints."""

from __future__ import annotations

from windlass_adopt.plan import Plan

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def plan_text(plan: Plan) -> str:
    """Return what would be taken, and what cannot be."""
    places = plan.places
    lines = [f"from {places.source} and {places.source_state}, database version {plan.version}"]
    lines.append(f"to   {places.root} and {places.state}")
    lines += _counts(plan)
    for name, kept in sorted(plan.snapshots.items()):
        lines.append(f"  {f'of {name}':<12}{len(kept):>8}")
    lines.append("everything is renamed, nothing is copied; nothing restarts, nothing is pulled")
    lines += [f"cannot be taken: {each}" for each in plan.left]
    return "".join(f"{line}\n" for line in lines)


def done_text(plan: Plan, seconds: float) -> str:
    """Return what was taken."""
    lines = [f"adopted in {seconds:.1f} s, 0 bytes copied", *_counts(plan)]
    lines += [f"left behind: {each}" for each in plan.left]
    lines.append("start windlassd; clients that connect to containerd's socket reach it")
    return "".join(f"{line}\n" for line in lines)


def size(number: int) -> str:
    """Return bytes as people read them."""
    value, unit = float(number), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {UNITS[unit]}" if unit else f"{number} B"


def _counts(plan: Plan) -> list[str]:
    counts = plan.count()
    lines = [f"{name:<14}{number:>8}" for name, number in counts.items()]
    place = list(counts).index("blobs")
    lines[place] += f"   {size(plan.bytes())}"
    return lines
