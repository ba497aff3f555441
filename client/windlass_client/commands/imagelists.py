"""`windlass images`, image history and image inspect: what docker's client shows of images."""

from __future__ import annotations

import asyncio
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from windlass_client.cli import Where

if TYPE_CHECKING:
    from windlass_api.containerd.services.images.v1.images_pb2 import Image
    from windlass_client.asking import Filters
    from windlass_client.client import Client
    from windlass_client.imagerows import Listed

COLUMNS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "Size": "SIZE",
}
FILTERS = ("before", "dangling", "label", "reference", "since", "until")
DAEMONS = ("==", "!=", "~=")
"""Operators of the daemon's own filters."""


@click.command("ls")
@click.argument("names", nargs=-1, metavar="[REPOSITORY[:TAG]]")
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted for docker's sake; all are listed.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--digests", is_flag=True, help="Print the digests that the names point to.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help=f"By {', '.join(FILTERS)}.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ls(
    where: Where,
    names: tuple[str, ...],
    everything: bool,
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str,
    as_json: bool,
) -> None:
    """List images, the newest first. Names may have * in them; filters of the daemon, as name~=busybox, do as well."""
    from windlass_client import asking, format, output

    wanted = asking.filters(filters, FILTERS)

    async def work() -> tuple[list[Listed], dict[str, Image]]:
        from windlass_client import imagerows

        async with where.client() as client:
            patterns = [name for name in names if not any(each in name for each in DAEMONS)]
            images = await client.images.list(*(name for name in names if name not in patterns))
            rows = await imagerows.listed(client, images)
            shown = [row for row in rows if _named(row, [*patterns, *wanted.get("reference", ())])]
            return _filtered(shown, rows, wanted), {image.name: image for image in images}

    rows, images = asyncio.run(work())
    if quiet:
        for id in dict.fromkeys(_row(each, no_trunc)["ID"] for each in rows):
            click.echo(id)
    elif as_json:
        output.document([_record(row, images[row.name]) for row in rows])
    else:
        columns = {key: head for key, head in COLUMNS.items() if digests or key != "Digest"}
        format.rows([_row(each, no_trunc) for each in rows], columns, form)


def _row(each: Listed, whole: bool) -> dict[str, object]:
    from windlass_client import format, imagerows, output

    return {
        "Repository": each.repository,
        "Tag": each.tag,
        "Digest": each.digest,
        "ID": each.id if whole else imagerows.short(each.id),
        "CreatedSince": f"{format.age(time.time() - each.created)} ago" if each.created else "N/A",
        "CreatedAt": output.local(each.created) if each.created else "N/A",
        "Size": format.size(each.size),
    }


def _record(row: Listed, found: Image) -> dict[str, object]:
    from windlass_client import output

    return {
        "name": row.name,
        "id": row.id,
        "digest": row.digest,
        "type": found.target.media_type,
        "size": row.size,
        "labels": row.labels,
        "created": output.moment(found.created_at),
        "updated": output.moment(found.updated_at),
    }


def _named(row: Listed, patterns: list[str]) -> bool:
    if not patterns:
        return True
    names = {row.name, row.repository, f"{row.repository}:{row.tag}", row.name.partition("@")[0].rpartition(":")[0]}
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def _filtered(rows: list[Listed], all_rows: list[Listed], wanted: Filters) -> list[Listed]:
    from windlass_client import asking

    for text in wanted.get("dangling", ()):
        rows = [row for row in rows if row.dangling == asking.truth(text, "dangling")]
    if "label" in wanted:
        rows = [row for row in rows if asking.labelled(row.labels, wanted["label"])]
    for key, sign in (("before", 1), ("since", -1)):
        for text in wanted.get(key, ()):
            than = _created(all_rows, text)
            rows = [row for row in rows if (than - row.created) * sign > 0]
    for text in wanted.get("until", ()):
        until = asking.moment(text).timestamp()
        rows = [row for row in rows if row.created <= until]
    return rows


def _created(rows: list[Listed], word: str) -> float:
    from windlass.errors import NotFound
    from windlass_client.shortnames import full

    for row in rows:
        if row.name in (word, full(word)) or (word and row.id.removeprefix("sha256:").startswith(word)):
            return row.created
    raise NotFound(f'image "{word[:200]}" of the filter does not exist; `windlass images` lists those that do')


@click.command()
@click.argument("name", metavar="IMAGE")
@click.option("-H", "--human/--no-human", default=True, help="Print sizes and ages as people read them.")
@click.option("-q", "--quiet", is_flag=True, help="Print IDs only.")
@click.option("--no-trunc", is_flag=True, help="Print whole IDs and commands.")
@click.option("--format", "form", default="", metavar="TEMPLATE", help="table, json, or a Go template.")
@click.pass_obj
def history(where: Where, name: str, human: bool, quiet: bool, no_trunc: bool, form: str) -> None:
    """Show how IMAGE was made, the last step first."""
    from windlass_client import format

    async def work() -> list[dict[str, object]]:
        from windlass_client import imagehistory

        async with where.client() as client:
            return await imagehistory.rows(client, name, human, whole=no_trunc)

    rows = asyncio.run(work())
    if quiet:
        for row in rows:
            click.echo(row["ID"])
        return
    created = "CreatedSince" if human else "CreatedAt"
    heads = {"ID": "IMAGE", created: "CREATED", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT"}
    format.rows(rows, heads, form)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGES")
@click.option("-f", "--format", "form", default="", metavar="TEMPLATE", help="A Go template, or json.")
@click.pass_obj
def inspect(where: Where, names: tuple[str, ...], form: str) -> int:
    """Print all that is known about IMAGES, as docker's JSON."""
    from windlass.errors import Error
    from windlass_client import listing

    async def work() -> tuple[list[object], int]:
        found: list[object] = []
        code = 0
        async with where.client() as client:
            for name in names:
                try:
                    found.append(await _document(client, name))
                except Error as error:
                    listing.fail(error)
                    code = 1
        return found, code

    found, code = asyncio.run(work())
    listing.documents(found, form)
    return code


async def _document(client: Client, name: str) -> dict[str, object]:
    from windlass_client import dockerimage, imagefinding

    return await dockerimage.document(client, await imagefinding.find(client, name))
