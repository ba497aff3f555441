"""Pods: their life, networks, files and handlers."""
