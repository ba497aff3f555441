"""The proto package `containerd.runtime.bootstrap.v1`."""
