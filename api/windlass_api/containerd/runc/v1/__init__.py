"""The proto package `containerd.runc.v1`."""
