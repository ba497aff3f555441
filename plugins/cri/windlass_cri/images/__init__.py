"""Images: pulled, listed, removed, measured."""
