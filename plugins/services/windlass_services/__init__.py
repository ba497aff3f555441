"""The gRPC faces of Windlass: each service translates, and nothing else."""
