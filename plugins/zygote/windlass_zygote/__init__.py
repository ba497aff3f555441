"""The zygote: a small process that forks shims and workers for the daemon."""
