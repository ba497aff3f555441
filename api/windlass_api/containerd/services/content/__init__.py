"""Proto packages below `containerd.services.content`."""
