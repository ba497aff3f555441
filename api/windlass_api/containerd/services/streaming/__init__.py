"""Proto packages below `containerd.services.streaming`."""
