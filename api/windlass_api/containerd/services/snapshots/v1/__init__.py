"""The proto package `containerd.services.snapshots.v1`."""
