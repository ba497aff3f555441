"""The Windlass kernel: a plugin mechanism, and the contracts that plugins keep."""

__version__ = "0.1.0"
