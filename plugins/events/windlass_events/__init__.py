"""The exchange, which brings every event to every subscriber."""
