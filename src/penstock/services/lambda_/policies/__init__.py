"""Permissions on functions: statements of a policy a qualifier, kept and shown."""
