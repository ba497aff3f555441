"""An example: a plugin type of one's own."""
