"""Proto packages below `containerd.services.introspection`."""
