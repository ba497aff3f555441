"""The gRPC services, which translate."""
