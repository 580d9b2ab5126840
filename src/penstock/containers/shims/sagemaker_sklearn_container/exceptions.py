"""Errors of this container."""


class UserError(Exception):
    """Something the person can put right."""
