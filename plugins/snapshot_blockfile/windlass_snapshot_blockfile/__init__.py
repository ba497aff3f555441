"""A snapshotter on files that hold filesystems."""
