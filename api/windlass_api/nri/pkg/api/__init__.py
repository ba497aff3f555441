"""Proto packages below `nri.pkg.api`."""
