"""The erofs snapshotter: layers as images of a read-only filesystem, with their differ and their mounts."""
