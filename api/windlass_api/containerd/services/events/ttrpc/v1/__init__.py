"""The proto package `containerd.services.events.ttrpc.v1`."""
