"""The proto package `containerd.services.namespaces.v1`."""
