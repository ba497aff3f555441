"""The proto package `containerd.services.sandbox.v1`."""
