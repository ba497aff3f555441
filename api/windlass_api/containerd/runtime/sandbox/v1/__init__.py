"""The proto package `containerd.runtime.sandbox.v1`."""
