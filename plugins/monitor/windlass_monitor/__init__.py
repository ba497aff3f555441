"""Measures the cgroups of tasks."""
