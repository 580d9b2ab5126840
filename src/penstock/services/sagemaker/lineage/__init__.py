"""Lineage: actions, artifacts, contexts, and the associations between them and trial components; what jobs made is entered by itself.

Kept and shown; QueryLineage walks the associations. Jobs are entered when they have ended, model packages when they are
registered (a pipeline's jobs and packages when its execution has ended) and at each change of their approval.
"""
