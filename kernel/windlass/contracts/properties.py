"""Names of the facts about the daemon that `InitContext.properties` holds."""

GRPC_ADDRESS = "io.containerd.plugin.grpc.address"
TTRPC_ADDRESS = "io.containerd.plugin.ttrpc.address"
ROOT = "io.windlass.root"
"""The daemon's own root; a plugin's is `InitContext.root`."""
STATE = "io.windlass.state"
LOG_LEVEL = "io.windlass.log-level"
