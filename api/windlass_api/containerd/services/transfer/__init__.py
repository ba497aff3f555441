"""Proto packages below `containerd.services.transfer`."""
