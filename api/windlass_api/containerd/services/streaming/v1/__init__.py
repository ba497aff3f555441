"""The proto package `containerd.services.streaming.v1`."""
