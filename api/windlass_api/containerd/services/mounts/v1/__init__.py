"""The proto package `containerd.services.mounts.v1`."""
