"""The metadata store: every namespace's own view of content, snapshots, images, containers and leases."""
