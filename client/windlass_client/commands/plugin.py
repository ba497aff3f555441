"""`windlass plugin`: serve."""

from __future__ import annotations

from pathlib import Path

import click

from windlass_client.cli import Group


@click.group(cls=Group)
def plugin() -> None:
    """Work with a plugin that is installed here, without a daemon."""


@plugin.command()
@click.argument("uri")
@click.option("--address", "socket", required=True, metavar="SOCKET", help="Where to serve it: a path.")
@click.option(
    "--root", metavar="DIR", default="", help="Where it keeps its files; by default below /var/lib/windlass/serve."
)
@click.option(
    "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="Configuration, as windlassd's."
)
@click.option("--content", metavar="SOCKET", default="", help="For a differ: the daemon whose blobs it works on.")
def serve(uri: str, socket: str, root: str, path: Path | None, content: str) -> int:
    """Serve a snapshotter, content store or differ on a socket, for [proxy_plugins] of containerd or Windlass.

    URI is as `windlass plugins ls` shows it, such as io.containerd.snapshotter.v1.native.
    """
    from windlass_client.serve import serve as serve_plugin

    return serve_plugin(uri, socket, path, root, content)
