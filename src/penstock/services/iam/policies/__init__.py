"""Managed policies and their versions: kept and shown, not enforced.

AWS's own answer as existing; few of their texts are here.
"""
