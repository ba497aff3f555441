"""Which files an installation has outside of its environment, and where they belong."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

CONFIGURATION = Path("/etc/windlass/config.toml")
UNITS = ("windlass.service", "windlass.socket")


@dataclass(frozen=True)
class Places:
    """Where files go: below ``/usr/local`` for an administrator's, below ``/usr`` for a distribution's."""

    prefix: Path
    zsh: str
    """Where zsh looks below `prefix`, which Debian has of its own for packages."""

    @property
    def commands(self) -> Path:
        """What is in PATH."""
        return self.prefix / "bin"

    @property
    def units(self) -> Path:
        """Where systemd looks."""
        return self.prefix / "lib/systemd/system"

    @property
    def share(self) -> Path:
        """What is the same on every machine."""
        return self.prefix / "share"


LOCAL = Places(Path("/usr/local"), "share/zsh/site-functions")
PACKAGE = Places(Path("/usr"), "share/zsh/vendor-completions")


def commands() -> list[str]:
    """Return the programs that our distributions bring, such as ``windlassd`` and the shim."""
    scripts = entry_points(group="console_scripts")
    return sorted({each.name for each in scripts if each.dist and each.dist.name.startswith("windlass")})


def contents(places: Places) -> Mapping[Path, bytes]:
    """Return the text of every file: units, manual pages, completions. The configuration is not among them."""
    units = {places.units / name: _text(name, places).encode() for name in UNITS}
    temporary = {places.prefix / "lib/tmpfiles.d/windlass.conf": _text("windlass.conf", places).encode()}
    return units | temporary | dict(_pages(places)) | dict(_completions(places))


def configuration() -> bytes:
    """Return the configuration of a new installation."""
    return files("windlass_install").joinpath("files/config.toml").read_bytes()


def _text(name: str, places: Places) -> str:
    text = files("windlass_install").joinpath("files", name).read_text()
    return text.replace("@COMMANDS@", str(places.commands))


def _pages(places: Places) -> Iterator[tuple[Path, bytes]]:
    from windlass_install.manpages import pages

    for page in pages():
        # without a time in it, so that the same page is the same file
        yield places.share / f"man/man{page.section}/{page.file}.gz", gzip.compress(page.text().encode(), mtime=0)


def _completions(places: Places) -> Iterator[tuple[Path, bytes]]:
    from windlass_install.completions import PROGRAM, scripts

    where = {
        "bash": places.share / "bash-completion/completions" / PROGRAM,
        "zsh": places.prefix / places.zsh / f"_{PROGRAM}",
        "fish": places.share / "fish/vendor_completions.d" / f"{PROGRAM}.fish",
    }
    for shell, text in scripts().items():
        yield where[shell], text.encode()
