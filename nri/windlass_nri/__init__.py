"""NRI, the Node Resource Interface of containerd and CRI-O: for runtimes that call plugins, and for plugins."""
