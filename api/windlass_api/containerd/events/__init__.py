"""The proto package `containerd.events`."""
