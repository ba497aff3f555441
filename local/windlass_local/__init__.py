"""One namespace of a daemon, as plugins and clients use it."""
