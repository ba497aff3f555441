"""`windlassd-rootless`: the daemon as root of a user namespace that belongs to a plain user (docs/rootless.md)."""
