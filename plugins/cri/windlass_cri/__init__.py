"""CRI: the kubelet's runtime (docs/containerd 5)."""
