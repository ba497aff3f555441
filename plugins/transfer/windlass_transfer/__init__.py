"""Moves images between registries, the store and archives."""
