"""Containers: their life, streams, logs and commands."""
