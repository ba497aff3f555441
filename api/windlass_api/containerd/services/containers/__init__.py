"""Proto packages below `containerd.services.containers`."""
