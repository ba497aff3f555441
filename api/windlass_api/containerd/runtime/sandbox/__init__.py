"""Proto packages below `containerd.runtime.sandbox`."""
