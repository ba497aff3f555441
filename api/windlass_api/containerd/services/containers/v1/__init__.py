"""The proto package `containerd.services.containers.v1`."""
