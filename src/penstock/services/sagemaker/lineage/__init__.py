"""Lineage: actions, artifacts, contexts, and the associations between them and trial components; what pipelines made is entered by itself.

Kept and shown; QueryLineage walks the associations.
"""
