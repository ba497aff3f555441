"""The proto package `containerd.services.content.v1`."""
