"""Proto packages below `google`."""
