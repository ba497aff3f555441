"""Proto packages below `containerd.services.tasks`."""
