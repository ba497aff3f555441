"""The sockets on which the daemon listens."""
