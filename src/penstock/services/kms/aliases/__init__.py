"""Names of keys."""
