"""The proto package `containerd.services.introspection.v1`."""
