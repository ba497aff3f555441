"""Containers and images as docker's `inspect` describes them, so that templates written for docker work."""
