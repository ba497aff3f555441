"""`windlass doctor`: what works on this machine and what does not, found without a daemon."""
