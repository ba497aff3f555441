"""The proto package `io.containerd.cgroups.v2`."""
