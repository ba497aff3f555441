"""The content store, with containerd's layout on disk."""
