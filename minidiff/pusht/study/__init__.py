"""Questions asked of a policy."""
