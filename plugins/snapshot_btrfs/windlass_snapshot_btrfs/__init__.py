"""A snapshotter on subvolumes of btrfs."""
