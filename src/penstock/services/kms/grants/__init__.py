"""Who may use a key, as the key's owner says: kept and shown."""
