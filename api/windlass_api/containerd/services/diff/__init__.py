"""Proto packages below `containerd.services.diff`."""
