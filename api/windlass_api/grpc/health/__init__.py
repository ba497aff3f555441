"""Proto packages below `grpc.health`."""
