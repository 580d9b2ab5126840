"""Programs being executed, each in a sandbox of its own. Knows no service."""
