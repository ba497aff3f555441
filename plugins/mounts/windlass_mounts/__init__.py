"""The mount manager: mounts that build on each other, kept by name until nothing holds them."""
