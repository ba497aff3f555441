"""Takes over what a containerd keeps and runs, and gives it back."""
