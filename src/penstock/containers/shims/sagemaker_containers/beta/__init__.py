"""Holds `framework`."""
