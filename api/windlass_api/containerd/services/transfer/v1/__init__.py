"""The proto package `containerd.services.transfer.v1`."""
