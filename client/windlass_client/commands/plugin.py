"""`windlass plugin`: serve."""

from __future__ import annotations

from pathlib import Path

import click

from windlass_client.cli import Group


@click.group(cls=Group)
def plugin() -> None:
    """Work with a plugin that is installed here, without a daemon."""


@plugin.command()
@click.argument("uri", metavar="URI|FILE|MODULE")
@click.option("--address", metavar="SOCKET", default="", help="Where to serve it: a path. Not for a hook plugin.")
@click.option(
    "--root", metavar="DIR", default="", help="Where it keeps its files; by default below /var/lib/windlass/serve."
)
@click.option(
    "--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="Configuration, as windlassd's."
)
@click.option("--content", metavar="SOCKET", default="", help="For a differ: the daemon whose blobs it works on.")
@click.option("--name", metavar="NAME", default="", help="For a hook plugin: its name as an NRI plugin.")
@click.option("--index", metavar="NN", default="", help="For a hook plugin: two digits; low ones are asked first.")
@click.option("--socket", metavar="SOCKET", default="", help="For a hook plugin: the runtime's NRI socket.")
def serve(
    uri: str, address: str, root: str, path: Path | None, content: str, name: str, index: str, socket: str
) -> int:
    """Serve a snapshotter, content store or differ on a socket, for [proxy_plugins] of containerd or Windlass.

    URI is as `windlass plugins ls` shows it, such as io.containerd.snapshotter.v1.native.

    A hook plugin that takes part in the steps of pods becomes an NRI plugin of a containerd or CRI-O. It is an
    installed one by its URI, or a FILE or MODULE with a declaration PLUGIN, or FILE:NAME with one of another name.
    """
    from windlass_client import servenri
    from windlass_client.serve import serve as serve_plugin

    if servenri.is_hook(uri):
        if address or content:
            raise click.UsageError("a hook plugin has no --address and no --content; it connects to --socket")
        return servenri.serve(uri, name, index, socket, path, root)
    if not address:
        raise click.UsageError("--address is missing: where to serve the plugin")
    return serve_plugin(uri, address, path, root, content)
