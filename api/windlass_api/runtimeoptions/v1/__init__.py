"""The proto package `runtimeoptions.v1`."""
