"""Networks by CNI plugins, as the specification 1.1 of CNI says."""
