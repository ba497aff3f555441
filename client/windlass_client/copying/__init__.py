"""Files into and out of containers: no path leads out of the container's root, and none of its code is run."""
