"""The proto package `containerd.v1.types`."""
