"""The proto package `containerd.services.version.v1`."""
