"""Names and lists of the container."""
