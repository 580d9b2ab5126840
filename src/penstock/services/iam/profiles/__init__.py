"""Instance profiles: kept and shown. Nothing runs in one here; tools ask for them when they delete roles."""
