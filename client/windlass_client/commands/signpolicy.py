"""`windlass image sign-policy`: shows, tries and extends the file that says whose images may be used."""

from __future__ import annotations

from pathlib import Path

import click

from windlass_client import output
from windlass_client.cli import Group
from windlass_client.output import printable
from windlass_images.signpolicy import DEFAULT_FILE, Policy


@click.group("sign-policy", cls=Group)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_FILE,
    show_default=True,
    help="The policy.",
)
@click.pass_context
def sign_policy(context: click.Context, path: Path) -> None:
    """Say whose images may be used. The daemon reads the file at every pull."""
    context.obj = path


def _load(path: Path) -> Policy:
    from windlass_images import signpolicy

    return signpolicy.load(path)


@sign_policy.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(path: Path, as_json: bool) -> None:
    """Print the rules, and what holds for every other image."""
    policy = _load(path)
    records: list[dict[str, object]] = [
        {"prefix": rule.prefix, "require": rule.require, "keys": [str(key) for key in rule.keys], "place": place}
        for rule, place in policy.rules
    ]
    records.append({"prefix": "*", "require": policy.default, "keys": [], "place": f"{path}: default"})
    output.rows(records, ("prefix", "require", "keys", "place"), as_json)


@sign_policy.command()
@click.argument("name", metavar="IMAGE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(path: Path, name: str, as_json: bool) -> None:
    """Say which rule decides about IMAGE, and read the keys that it needs; no registry is asked."""
    from windlass_images import signatures

    decision = _load(path).decide(name)
    signatures.load_keys(decision.keys)
    keys = [str(key) for key in decision.keys]
    if as_json:
        output.rows([{"image": name, "require": decision.require, "keys": keys, "place": decision.place}], (), True)
    else:
        click.echo(f"{printable(name)}: {decision.require} {' '.join(keys)}".rstrip() + f" ({decision.place})")


@sign_policy.command()
@click.argument("prefix")
@click.argument("require", type=click.Choice(["allow", "deny", "digest", "signature"]))
@click.option("--key", "keys", multiple=True, help="PEM file with a public key; several may be given.")
@click.pass_obj
def add(path: Path, prefix: str, require: str, keys: tuple[str, ...]) -> None:
    """Add a rule for the images whose names start with PREFIX; the file stays as it is if that makes an error."""
    from windlass_images import signatures, signpolicy

    signatures.load_keys(path.parent / key for key in keys)
    signpolicy.append(path, prefix, require, keys)
    click.echo(f"{printable(prefix)}: {require}")
