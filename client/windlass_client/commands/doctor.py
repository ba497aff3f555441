"""`windlass doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from windlass_client.cli import Where


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The daemon's configuration.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="The daemon's root.")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="The daemon's state directory.")
@click.option("--registry", "names", metavar="HOST", multiple=True, help="Ask this registry too; may be repeated.")
@click.option("--offline", is_flag=True, help="Ask no registry.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what is not as it should be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(
    where: Where,
    config: Path | None,
    root: Path | None,
    state: Path | None,
    names: tuple[str, ...],
    offline: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Say what works on this machine, what does not, and the remedy.

    It looks at Linux, programs, networks, the daemon's configuration, space and socket, and at registries. No daemon
    has to run. The exit code is 1 if something required is missing.
    """
    from dataclasses import replace

    from windlass_client import output
    from windlass_client.doctor import findings, registries
    from windlass_client.doctor.daemon import Places
    from windlass_client.doctor.examine import examine

    places = Places(config, sockets=(Path(where.address),))
    places = replace(places, root=root or places.root, state=state or places.state)
    asked = () if offline else tuple(dict.fromkeys((*names, *registries.configured(), registries.DEFAULT)))
    found = examine(places, asked)
    shown = [each for each in found if each.state in (findings.WARNING, findings.ERROR)] if quiet else found
    if as_json:
        output.document([each.to_json() for each in shown])
    else:
        for line in findings.lines(shown):
            click.echo(output.printable(line))
        click.echo(f"{'' if quiet and not shown else chr(10)}{findings.summary(found)}")
    return 1 if any(each.state == findings.ERROR for each in found) else 0
