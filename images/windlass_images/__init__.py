"""What is done with images, in a daemon or through its API."""
