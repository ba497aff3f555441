"""Proto packages below `containerd.runc`."""
