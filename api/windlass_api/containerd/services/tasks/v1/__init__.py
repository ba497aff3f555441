"""The proto package `containerd.services.tasks.v1`."""
