"""Aliases: names for versions, with weights where calls are shared between two of them."""
