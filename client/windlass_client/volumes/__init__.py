"""Volumes: directories that outlive containers, and how they, host directories and tmpfs come into a container."""
