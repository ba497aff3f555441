"""A client of OCI registries: synchronous, for any number of threads."""
