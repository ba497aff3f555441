"""The proto package `containerd.services.diff.v1`."""
