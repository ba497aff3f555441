"""The proto package `containerd.task.v2`."""
