"""The proto package `containerd.types.transfer`."""
