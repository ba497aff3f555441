"""Proto packages below `containerd.task`."""
