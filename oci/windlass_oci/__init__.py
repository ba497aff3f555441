"""From an image's config to the OCI's spec of a container."""
