"""Runs containers as tasks: starts their shims, talks to them, finds them again after a restart."""
