"""The proto package `containerd.runhcs.v1`."""
