"""The proto package `google.rpc`."""
