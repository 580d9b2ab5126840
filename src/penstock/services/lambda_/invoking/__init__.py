"""Invocations: by a caller who waits, asynchronous with retries and destinations, and for other services."""
