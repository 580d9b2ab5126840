"""Turns a request into a call, and a call into a change. Knows the wire and the store, and no service."""
