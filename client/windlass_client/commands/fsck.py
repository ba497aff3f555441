"""`windlass fsck`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from windlass.errors import Error, StartError

CLEAN, CORRECTED, UNCORRECTED, FAILED = 0, 1, 4, 8
"""Exit codes, as fsck(8) has them."""


@click.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything that is there.")
@click.option("--deep", is_flag=True, help="Read every blob and compare its digest.")
@click.option("--root", metavar="DIR", help="The daemon's root.")
@click.option("--state", metavar="DIR", help="The daemon's state directory.")
@click.option("--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="The daemon's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fsck(repair: bool, deep: bool, root: str | None, state: str | None, path: Path | None, as_json: bool) -> int:
    """Check what a daemon that is stopped keeps on disk.

    Rows are compared with blobs, snapshots, bundles and mounts. The exit code is 0 when all is well, 1 when all
    that was found has been mended, 4 when something is left, and 8 when nothing could be checked.
    """
    from windlass.config.loading import WINDLASS, Flags
    from windlass_client import output
    from windlass_client.cli import fail
    from windlass_client.fsck import fsck as check

    try:
        problems = check(path, WINDLASS, Flags(root, state), repair, deep)
    except (Error, StartError) as error:
        fail(str(error))
        return FAILED
    if as_json:
        output.document([asdict(problem) for problem in problems])
    else:
        for problem in problems:
            click.echo(str(problem))
        if not problems:
            click.echo("clean")
    if all(problem.repaired for problem in problems):
        return CORRECTED if problems else CLEAN
    return UNCORRECTED
