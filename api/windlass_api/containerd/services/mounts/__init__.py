"""Proto packages below `containerd.services.mounts`."""
