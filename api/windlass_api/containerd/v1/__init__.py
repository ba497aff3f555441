"""Proto packages below `containerd.v1`."""
