"""The OCI spec of a container, made of its image and of what a client asks."""
