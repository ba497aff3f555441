"""What holds for every test: gRPC is told not to follow forks, before it is imported.

Tests fork workers from a process in which other tests have used gRPC. Its handlers would start its
threads again in the children, which close all descriptors and would be aborted for it.
"""

from __future__ import annotations

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
