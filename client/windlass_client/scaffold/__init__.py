"""`windlass plugins new`: packages that work, and pass the suite of their contract, before an author changes a line."""
