#!/usr/bin/env python3
"""Builds the documentation as a web site: .venv/bin/python scripts/build_site.py [DIRECTORY].

The pages of this tree, with what `site_pages.reference` makes from code, become HTML in DIRECTORY (build/site). A link
that leads nowhere, or a page that no table of contents has, ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from site_pages import contents, pages, reference

TREE = Path(__file__).resolve().parents[1]


def build(out: Path) -> int:
    """Build the site in ``out`` and return Sphinx's exit code: 0 without a single warning."""
    with tempfile.TemporaryDirectory(prefix="windlass-site.") as directory:
        source = Path(directory)
        pages.copy(TREE, source)
        reference.write(source / contents.REFERENCE)
        contents.write(source)
        command = ("-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", Path(contents.__file__).parent)
        return subprocess.run([sys.executable, *command, source, out]).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Build the site and print where it begins."""
    parser = argparse.ArgumentParser(description="Build the documentation as a web site.")
    parser.add_argument("directory", nargs="?", type=Path, default=TREE / "build" / "site")
    out: Path = parser.parse_args(argv).directory
    code = build(out)
    if not code:
        sys.stdout.write(f"{out}/index.html\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
