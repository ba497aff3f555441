"""An OCI runtime: creates, starts, enters, signals and deletes containers by their bundles."""
