"""The proto package `containerd.runhcs.stats.v1`."""
