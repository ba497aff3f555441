"""The proto package `runtime.v1`."""
