"""Windlass plugin: sends OpenTelemetry traces of what the daemon does."""
