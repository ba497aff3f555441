"""The shim that keeps containers of runc and other OCI runtimes."""
