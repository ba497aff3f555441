"""Asks the programs of a directory whether an image may be used."""
