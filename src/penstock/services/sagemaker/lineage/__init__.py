"""Lineage: actions, artifacts, contexts, and the associations between them and trial components; what jobs made is entered by itself.

Kept and shown; QueryLineage walks the associations. Jobs are entered when they have ended (a pipeline's when its execution has),
model packages when they are registered and at each change of their approval.
"""
