"""The proto package `grpc.health.v1`."""
