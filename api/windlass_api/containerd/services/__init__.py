"""Proto packages below `containerd.services`."""
