"""Proto packages below `grpc`."""
