"""Networks of containers: by CNI plugins, which hooks of the container execute (docs/networks.md)."""
