"""Proto packages below `runtime`."""
