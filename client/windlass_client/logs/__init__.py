"""Logs of containers: the program that keeps one, and what reads it. Modules of the program import next to nothing."""
