"""An example: snapshots as plain copies."""
