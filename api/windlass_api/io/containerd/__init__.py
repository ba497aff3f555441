"""Proto packages below `io.containerd`."""
