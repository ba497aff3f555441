"""Proto packages below `containerd.runhcs.stats`."""
