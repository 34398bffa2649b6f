"""Where demonstrations come from."""
