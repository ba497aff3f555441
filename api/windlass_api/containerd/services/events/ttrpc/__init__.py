"""Proto packages below `containerd.services.events.ttrpc`."""
