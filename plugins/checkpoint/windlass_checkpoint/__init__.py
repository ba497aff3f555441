"""Checkpoints of tasks as blobs in the content store, and tasks from such blobs."""
