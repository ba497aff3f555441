"""What pods and containers use, as statistics and as metrics."""
