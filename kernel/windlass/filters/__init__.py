"""Filters of lists and events, with the regular expressions that they use, and masks of updates."""
