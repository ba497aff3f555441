"""`python -m windlass_install place|remove`: the place of this environment's Windlass on its host."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from windlass.errors import StartError
from windlass_install.layout import LOCAL, PACKAGE
from windlass_install.placing import Root, place, recorded
from windlass_install.removing import uninstall


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    top = argparse.ArgumentParser("python -m windlass_install", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    placing = commands.add_parser("place", help="put commands, units, manual pages and completions in their places")
    placing.add_argument("--replacing", type=Path, metavar="DIR", help="environment whose files these replace")
    placing.add_argument("--package", type=Path, metavar="ROOT", help="make the tree of a package: /usr, below ROOT")
    placing.add_argument("--environment", type=Path, metavar="DIR", help="where the environment is to be")
    removing = commands.add_parser("remove", help="stop the daemon and remove what was placed, and this environment")
    removing.add_argument("--purge", action="store_true", help="also configuration, images and volumes")
    removing.add_argument("--force", action="store_true", help="leave containers that run as they are")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Place or remove, and return the exit code."""
    options = parser().parse_args(argv)
    environment = Path(sys.prefix)
    try:
        if options.command == "remove":
            for path in uninstall(environment, options.purge, options.force):
                sys.stdout.write(f"{path} stays; --purge removes it too\n")
        else:
            root = Root(options.package) if options.package else Root()
            earlier = recorded(options.replacing or environment)
            place(options.environment or environment, PACKAGE if options.package else LOCAL, root, earlier)
    except StartError as error:
        sys.stderr.write(f"windlass_install: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"windlass_install: {error.filename or 'system'}: {error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
