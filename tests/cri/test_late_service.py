"""CRI is imported when it is needed, and says beforehand what it serves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from windlass.contracts import rpc
from windlass_api.runtime.v1.api_pb2 import DESCRIPTOR
from windlass_cri.imageservice import ImageService
from windlass_cri.runtimeservice import RuntimeService
from windlass_cri.service import MISSING


@pytest.mark.parametrize("service", [RuntimeService, ImageService])
def test_what_is_said_to_be_missing_is(service: type[object]) -> None:
    """Else a client would get an internal error where it should get UNIMPLEMENTED."""
    methods = [method.name for method in DESCRIPTOR.services_by_name[service.__name__].methods]
    missing = {name for name in methods if not rpc.is_implemented(service, name)}
    assert missing == MISSING[service.__name__]


def test_registering_imports_none_of_it() -> None:
    """A daemon without a kubelet pays for the descriptors alone."""
    code = "import sys, windlass_cri.plugin, windlass_cri.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert not [
        name for name in loaded if name.startswith(("windlass_cri.runtime", "windlass_streaming", "h11", "wsproto"))
    ]
