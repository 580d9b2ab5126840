"""Bytes of objects, stored once, by content hash."""
