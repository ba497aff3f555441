"""Checkpoints of containers and pods, and pods made from them."""
