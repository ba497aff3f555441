"""Compose files: read, merged and checked, then brought up and down through a daemon's API."""
