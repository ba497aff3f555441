"""The proto package `containerd.services.leases.v1`."""
