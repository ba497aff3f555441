"""Where CNI's networks and plugins are, and the program that containers' hooks execute."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from windlass.errors import FailedPrecondition
from windlass_client.networks.catalog import BIN_DIRS, CONF_DIR, Catalog
from windlass_client.networks.record import HOOK

CONF_VARIABLE, BIN_VARIABLE = "NETCONFPATH", "CNI_PATH"
"""As `nerdctl` and `cnitool` have them."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def catalog(environment: Mapping[str, str] = os.environ) -> Catalog:
    """Return the catalog of networks, in the usual directories or in those of the environment."""
    conf_dir = environment.get(CONF_VARIABLE)
    bin_dirs = [Path(each).absolute() for each in environment.get(BIN_VARIABLE, "").split(":") if each]
    return Catalog(Path(conf_dir).absolute() if conf_dir else CONF_DIR, bin_dirs or BIN_DIRS)


def hook_program() -> Path:
    """Return the hook's program: that of this client's own environment. Raises FailedPrecondition without one."""
    beside = [Path(sys.executable).with_name(HOOK), Path(sys.argv[0]).absolute().with_name(HOOK)]
    found = next((each for each in beside if os.access(each, os.X_OK)), None) or shutil.which(HOOK)
    if found is None:
        raise FailedPrecondition(f"{HOOK} is not next to {sys.executable}; install windlass-client again")
    return Path(found)


def check_iptables() -> None:
    """Raise FailedPrecondition if the program is missing that plugins of bridges need."""
    if shutil.which("iptables", path=PATH) is None:
        raise FailedPrecondition(
            "iptables is not installed, and networks with bridges need it; `apt install iptables`, "
            "or use --network none or --network host"
        )
