"""Pods that a container of an image that does nothing holds, as containerd makes them."""
