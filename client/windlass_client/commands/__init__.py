"""The commands of `windlass`, a module for each family, imported when one of it is called."""
