"""Proto packages below `containerd.services.namespaces`."""
