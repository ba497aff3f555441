"""A streaming server for Kubernetes: exec, attach and port-forward by SPDY/3.1 and WebSocket (docs/containerd 5.8)."""
