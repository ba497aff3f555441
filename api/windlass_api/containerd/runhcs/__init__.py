"""Proto packages below `containerd.runhcs`."""
