"""Proto packages below `io.containerd.cgroups`."""
