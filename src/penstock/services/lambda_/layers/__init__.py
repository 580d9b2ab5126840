"""Layers: archives that lie in /opt of the functions that name them."""
