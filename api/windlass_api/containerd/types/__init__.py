"""The proto package `containerd.types`."""
