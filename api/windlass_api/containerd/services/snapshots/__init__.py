"""Proto packages below `containerd.services.snapshots`."""
