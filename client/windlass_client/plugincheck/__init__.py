"""`windlass plugins check`: whether a plugin loads, starts, keeps its contract, and behaves when asked nonsense."""
