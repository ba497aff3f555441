"""Proto packages below `nri.pkg`."""
