"""The life of a container after it was created: start, stop, health, end."""
