"""The proto package `containerd.services.images.v1`."""
