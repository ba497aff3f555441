"""Work on images, in a daemon or through its API."""
