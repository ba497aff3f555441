"""Proto packages below `runtimeoptions`."""
