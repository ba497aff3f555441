"""Proto packages below `nri`."""
