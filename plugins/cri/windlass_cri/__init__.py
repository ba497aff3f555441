"""CRI: the runtime of the kubelet (docs/containerd 5)."""
