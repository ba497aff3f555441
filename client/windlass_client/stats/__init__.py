"""What containers use: metrics of their tasks, as rates and as a table that follows them."""
