"""An asyncio client for the containerd API, and the `windlass` command line."""
