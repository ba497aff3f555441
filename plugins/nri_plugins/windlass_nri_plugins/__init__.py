"""NRI for the daemon: plugins in processes of their own take part in the life of pods and containers."""
