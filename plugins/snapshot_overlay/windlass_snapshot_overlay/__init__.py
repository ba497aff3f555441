"""The overlayfs snapshotter: directories with differences, shown as one by Linux."""
