"""Proto packages below `containerd.services.sandbox`."""
