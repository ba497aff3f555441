"""Keeps containers running, or stopped, as their labels say."""
