"""Proto packages below `io`."""
