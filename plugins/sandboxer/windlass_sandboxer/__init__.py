"""Pods that no container holds."""
