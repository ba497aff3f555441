"""The proto package `containerd.task.v3`."""
