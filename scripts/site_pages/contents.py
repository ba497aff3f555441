"""The site's first page and its table of contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

REFERENCE = "reference"

CHAPTERS = {
    "Use it": (
        "docs/installing",
        "docs/first-container",
        "docs/docker",
        "docs/moving-from-containerd",
        "docs/containers",
        "docs/networks",
        "docs/volumes",
        "docs/compose",
        "docs/rootless",
    ),
    "Operate it": (
        "docs/operating",
        "docs/kubernetes",
        "docs/nri",
        "docs/security",
        "docs/oci-runtime",
        "docs/oci-security",
        "docs/performance",
        "docs/compatibility",
    ),
    "Extend it": ("docs/writing-a-plugin", "docs/recipes", "docs/conformance", "docs/architecture", "docs/glossary"),
    "Reference": tuple(f"{REFERENCE}/{name}" for name in ("commands", "daemon", "configuration", "hooks", "plugins")),
    "More": (
        "packages",
        "docs/decisions/README",
        "docs/containerd/README",
        "README",
        "CONTRIBUTING",
        "findings/README",
        "CHANGELOG",
    ),
}
"""Each chapter's pages, in the order in which a reader wants them."""

FIRST = """\
# Windlass

Windlass is a container daemon in Python with containerd's API, made of plugins. `ctr`, `dockerd`, `buildkitd`,
`nerdctl`, `crictl` and the kubelet work with it unchanged. A `pip install` replaces any part, and a conformance suite
says when the replacement is right.

![The parts of Windlass](docs/pictures/architecture.svg)
"""


def write(place: Path) -> None:
    """Write ``index.md``, and let the pages in ``place`` that stand for many others list them."""
    index = [FIRST, *(_tree(names, title) for title, names in CHAPTERS.items())]
    (place / "index.md").write_text("\n".join(index))
    readmes = [each.relative_to(place).with_suffix("").as_posix() for each in _packages(place)]
    (place / "packages.md").write_text("# Packages\n\nEach package is a distribution of its own.\n\n" + _tree(readmes))
    for folder in ("docs/decisions", "docs/containerd"):
        page = place / folder / "README.md"
        others = [each.stem for each in sorted(page.parent.glob("*.md")) if each != page]
        page.write_text(f"{page.read_text()}\n{_tree(others, hidden=True)}")


def _packages(place: Path) -> list[Path]:
    return sorted(each for each in place.glob("*/**/README.md") if not each.is_relative_to(place / "docs"))


def _tree(names: Sequence[str], title: str = "", hidden: bool = False) -> str:
    """Return the directive that makes pages part of the table of contents."""
    options = [f":caption: {title}"] * bool(title) + [":hidden:"] * hidden
    return "\n".join(["```{toctree}", ":maxdepth: 1", *options, "", *names, "```", ""])
