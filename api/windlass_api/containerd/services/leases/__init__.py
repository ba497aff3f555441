"""Proto packages below `containerd.services.leases`."""
