"""Proto packages below `containerd.services.version`."""
