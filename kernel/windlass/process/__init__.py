"""The daemon as a process: command line, start and stop, log, and what old shims execute."""
