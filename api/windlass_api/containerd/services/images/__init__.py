"""Proto packages below `containerd.services.images`."""
