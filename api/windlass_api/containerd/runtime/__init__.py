"""Proto packages below `containerd.runtime`."""
