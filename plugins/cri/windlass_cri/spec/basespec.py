"""The spec that an operator wants containers to be made from, instead of the default one (``base_runtime_spec``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from windlass.errors import Unknown
from windlass_oci.defaults import default_spec
from windlass_oci.runtime_spec import Spec

LIMIT = 16 << 20


def read_base_spec(path: Path) -> Spec:
    """Return the spec of a file; what it leaves out is the default's. Raises Unknown."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(LIMIT + 1)[: LIMIT + 1])
        return with_defaults(document)
    except OSError as error:
        raise Unknown(f'can\'t load base OCI spec "{path}": {error.strerror}') from error
    except (ValueError, TypeError, AttributeError) as error:
        raise Unknown(f'can\'t load base OCI spec "{path}": it is not an OCI spec: {error}') from error


def with_defaults(document: object) -> Spec:
    """Return a document of an OCI spec with the sections that the rest of CRI sets things in."""
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    default = default_spec("", "")
    for section in ("ociVersion", "process", "root", "mounts", "linux"):
        document.setdefault(section, default[section])
    process, linux = document["process"], document["linux"]
    process.setdefault("capabilities", default["process"]["capabilities"])
    process["capabilities"].setdefault("bounding", [])
    process.setdefault("cwd", "/")
    linux.setdefault("resources", {})
    linux["resources"].setdefault("devices", default["linux"]["resources"]["devices"])
    return cast("Spec", document)
