"""The native snapshotter: full copies in plain directories."""
