"""Proto packages below `containerd`."""
