"""Lists of containers as docker shows them."""
