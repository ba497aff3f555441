"""The proto package `containerd.services.events.v1`."""
