"""Proto packages below `containerd.runtime.bootstrap`."""
