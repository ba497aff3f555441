"""`windlass-oci`: the runtime with runc's command line. A command imports what it needs."""
