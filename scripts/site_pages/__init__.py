"""What `scripts/build_site.py` makes the web site of."""
